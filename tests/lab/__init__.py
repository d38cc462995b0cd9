"""The lab: a real Kubernetes of real kernels, on one machine, in one private network namespace.

Every node is a whole Linux kernel (User-Mode Linux, an ordinary process) that runs a real kubelet, containerd and
kube-proxy; etcd and the API server run beside them. `python -m tests.lab --help` is its command line, `cluster.Lab` its
Python interface, and `fixtures.lab` the cluster that the tests share.

Where to look, from the outside in:

    cli             the command line
    cluster         Lab: brings a cluster up and down, adds, crashes and removes nodes
    preflight       what this machine lacks, said before anything is started
    build, parts    the parts (kernel, Kubernetes, containerd, tools), each once, in a cache
    disk, oci       the disk that nodes start from, and the pause image on it
    addresses       who has which address
    network         the namespace, its two bridges, and the veths of the nodes
    pki             the cluster's certificates and kubeconfigs
    controlplane    etcd, kube-apiserver, kube-controller-manager, kube-scheduler
    node            a node seen from outside: the process that is its kernel
    node_init       a node seen from inside: its first process
    node_commands   the server in a node that runs commands for `remote`
    remote          running a command inside a node
    process, state  which processes are ours, and what a lab remembers on disk
"""
