package litellm

import (
	"context"
	"slices"

	"google.golang.org/grpc/metadata"

	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// GetOwnKeyInfo implements GET /key/info for the holder of a virtual key, who
// sees that key and no other.
func (s *Server) GetOwnKeyInfo(ctx context.Context, r *litellmv1.GetOwnKeyInfoRequest) (*litellmv1.GetOwnKeyInfoResponse, error) {
	held := heldKey(ctx)
	own, err := s.verifier.Verify(ctx, held)
	if err != nil {
		return nil, err
	}
	asked := tokenOf(r.GetKey())
	if r.GetKey() != "" && asked != own.Token && asked != tokenOf(held.Reveal()) {
		return nil, fault.Errorf(fault.Denied, "You are not allowed to access this key's info. Your role=internal_user")
	}
	if err := mayRead(own); err != nil {
		return nil, err
	}
	k, err := s.findKey(ctx, own.KeyID)
	if err != nil {
		return nil, err
	}
	spent, err := s.keyBalances(ctx, k)
	if err != nil {
		return nil, err
	}
	shown := r.GetKey()
	if shown == "" {
		shown = k.GetToken()
	}
	return &litellmv1.GetOwnKeyInfoResponse{Key: shown, Info: keyInfo(k, spent[0])}, nil
}

// mayRead says whether the key's own rules let it be read. Where a call comes from
// is not known here, so a key that is tied to networks is for administrators.
func mayRead(own *proxy.Key) error {
	info := slices.ContainsFunc(own.Routes, func(r string) bool { return r == "info_routes" || r == "/key/info" || r == "/key/*" })
	switch {
	case len(own.Networks) > 0:
		return fault.Errorf(fault.Denied, "this key is tied to networks: its info is for administrators")
	case len(own.Routes) > 0 && !info:
		return fault.Errorf(fault.Denied, "this key may not call /key/info")
	}
	return nil
}

// heldKey is the virtual key that the caller sends.
func heldKey(ctx context.Context) secret.String {
	in, _ := metadata.FromIncomingContext(ctx)
	h := proxy.Header{}
	if v := in.Get("authorization"); len(v) > 0 {
		h.Set("Authorization", v[0])
	}
	return proxy.KeyFrom(h)
}
