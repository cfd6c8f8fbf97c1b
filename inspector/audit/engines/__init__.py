"""Where an audit's photos are computed: processes of this machine, or the nodes of a cluster."""
