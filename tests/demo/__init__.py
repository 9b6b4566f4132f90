"""The main job, live, on real parts: `make demo`.

__main__  options, the order of acts, Ctrl-C     story    each act and what must hold in it
programs  fakecloud and fakecloud-ccm as processes    traffic  requests while things break
screen    what the reader sees, on a terminal and in a pipe    samples  manifests/samples, adapted
"""
