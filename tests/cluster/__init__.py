"""An embedded Kubernetes cluster: real etcd, kube-apiserver and controller manager, stand-in nodes.

The demo, the tests and the benches run on it; `python -m tests.cluster up` runs it by hand.

__main__      `up` and `binaries` on the command line
fixtures      pytest: `cluster` (one per session) and `namespace` (one per test)
embedded      EmbeddedCluster: everything below as one object for callers without an event loop
standins      StandIns: Node objects that pretend, with their health ports
pods          pods on them: bound, Running and Ready at once
forwarding    kube-proxy's part: listeners in step with Services and EndpointSlices
proxying      which endpoints answer behind which node's ports (pure)
work          a queue of keys for the two above
echo          the servers on those ports: raw HTTP and UDP echo, health answers
kubeapi       list, watch and write for the stand-ins
controlplane  ControlPlane: the three processes, their directory and their kubeconfigs
processes     child processes that can't outlive their parent; directories that get swept
pki           certificates of one control plane
binaries      where the executables come from: assets, cache, download, build
download      the official releases with their checksums
versions      which Kubernetes and etcd, and how progress is told
build         hyper/ built through the Go module proxy
errors        ClusterError
"""
