"""Where the client's address stands, for the usual proxies in front: one Network a kind."""

from authz403 import Gate, Network, Rule, anyone, networks

# One or more proxies that append to X-Forwarded-For.
appending = Network(trusted_proxies=["172.16.0.0/12"])

# A load balancer whose addresses nobody knows, before a proxy of your own: two entries are theirs.
counted = Network(trusted_proxies=["172.16.0.0/12"], hops=2)

# AWS: an Application Load Balancer in these subnets of your VPC.
aws = Network(trusted_proxies=["10.20.0.0/24", "10.20.1.0/24"])

# Google Cloud: an external Application Load Balancer writes the client and, behind it, its own address.
google = Network(trusted_proxies=["130.211.0.0/22", "35.191.0.0/16"], hops=2)

# Cloudflare, straight to the service: all of its networks belong here.
cloudflare = Network(source="cf-connecting-ip", trusted_proxies=["173.245.48.0/20", "2400:cb00::/32"])

# Fastly before a proxy of your own: both append.
fastly = Network(trusted_proxies=["172.16.0.0/12", "151.101.0.0/16", "2a04:4e40::/32"])

# A proxy that writes Forwarded (RFC 7239).
standard = Network(source="forwarded", trusted_proxies=["172.16.0.0/12"])

# A proxy that sets one header of its own.
single = Network(source="x-real-ip", trusted_proxies=["172.16.0.0/12"])

# A proxy on the same machine, over a unix socket.
unix_socket = Network(trusted_proxies=["unix"])

# No proxy: the connection is the client's.
direct = Network()

# The whole service is for the office and the data centre, but for one bad neighbour.
fenced = Network(
    trusted_proxies=["172.16.0.0/12"],
    allow=["10.0.0.0/8", "2001:db8:7::/48"],
    deny=["10.66.0.0/16"],
)

gate = Gate(
    rules=[Rule("*", "/reports/**", networks("10.0.0.0/8")), Rule("GET", "/**", anyone)],
    network=appending,
)
