"""A small cloud: it sells load balancers, runs each as a real HAProxy, and bills for them."""
