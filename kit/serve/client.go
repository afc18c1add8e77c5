package serve

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/proliferate-ai/llm-proxy/kit/env"
)

// Proxies are the networks of load balancers, and of services that pass calls on,
// whose x-forwarded-for is believed. Nobody else's is: whoever sends it could else
// choose where it comes from.
type Proxies []netip.Prefix

// ClientOf is the address that a request came from: of the connection, or behind
// trusted proxies the last one that is not theirs. The zero address: not known.
func (p Proxies) ClientOf(r *http.Request) netip.Addr {
	return p.client(connected(r.RemoteAddr), hops(r.Header.Values("X-Forwarded-For")))
}

// CallerOf is the same of a gRPC call. A call that comes through the own gateway
// has no other connection than the one that the gateway saw, which stands last.
func (p Proxies) CallerOf(ctx context.Context) netip.Addr {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	passed := hops(metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"))
	if from.Addr.String() != pipeAddr {
		return p.client(connected(from.Addr.String()), passed)
	}
	last := len(passed) - 1
	return p.client(address(passed[last]), passed[:last])
}

// pipeAddr is the address of both ends of the pipe between the own gateway and
// the own server.
const pipeAddr = "bufconn"

// client goes back from where a connection comes from as far as proxies are trusted.
func (p Proxies) client(at netip.Addr, passed []string) netip.Addr {
	for n := len(passed) - 1; n >= 0 && p.trusts(at); n-- {
		hop := address(passed[n])
		if !hop.IsValid() {
			break
		}
		at = hop
	}
	return at
}

func (p Proxies) trusts(at netip.Addr) bool {
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(at) })
}

// hops are the parts of x-forwarded-for, at least one.
func hops(values []string) []string { return strings.Split(strings.Join(values, ","), ",") }

// connected is the address of one end of a connection; the zero address: it has none.
func connected(addr string) netip.Addr {
	at, _ := netip.ParseAddrPort(addr) // what is none is the zero address
	return plain(at.Addr())
}

// address reads one hop; the zero address: it is none.
func address(text string) netip.Addr {
	at, _ := netip.ParseAddr(strings.TrimSpace(text)) // what is none is the zero address
	return plain(at)
}

// plain is an address in the one form that networks are compared with, and of
// bounded size: a zone is any text.
func plain(at netip.Addr) netip.Addr { return at.Unmap().WithZone("") }

// readProxies reads networks such as 10.0.0.0/8.
func readProxies(r *env.Reader, name string) Proxies {
	var out Proxies
	for _, text := range r.List(name) {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			r.Fault(name, "%q is not a network such as 10.0.0.0/8", text)
		}
		out = append(out, network)
	}
	return out
}
