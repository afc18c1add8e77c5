package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/encoding/protojson"
)

// NewMux makes a gateway mux with the project's JSON: snake_case names, unset
// values present, unknown fields refused. Options given later win.
func NewMux(opts ...runtime.ServeMuxOption) *runtime.ServeMux {
	return runtime.NewServeMux(append([]runtime.ServeMuxOption{
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{Marshaler: JSON(false)}),
		runtime.WithIncomingHeaderMatcher(passHeader),
	}, opts...)...)
}

// JSON is the project's JSON codec. Clients of foreign shapes may send fields
// that we do not know; there, ignoreUnknown is set.
func JSON(ignoreUnknown bool) runtime.Marshaler {
	return discreet{&runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: ignoreUnknown},
	}}
}

// discreet says where JSON is wrong and not what stands there, which may be a
// secret.
type discreet struct{ *runtime.JSONPb }

// NewDecoder implements runtime.Marshaler.
func (d discreet) NewDecoder(r io.Reader) runtime.Decoder {
	inner := d.JSONPb.NewDecoder(r)
	return runtime.DecoderFunc(func(v any) error { return withoutValue(inner.Decode(v)) })
}

// Unmarshal implements runtime.Marshaler.
func (d discreet) Unmarshal(text []byte, v any) error {
	return withoutValue(d.JSONPb.Unmarshal(text, v))
}

// value is what protojson says of what it could not read.
var value = regexp.MustCompile(`(unexpected token|invalid value for .*?:) .*$`)

func withoutValue(err error) error {
	if err == nil || !value.MatchString(err.Error()) {
		return err
	}
	return errors.New(value.ReplaceAllString(err.Error(), "$1"))
}

// passHeader hands x-request-id and the client's user agent to gRPC besides
// what the gateway passes by itself.
func passHeader(name string) (string, bool) {
	switch strings.ToLower(name) {
	case "x-request-id", "idempotency-key", "litellm-changed-by":
		return strings.ToLower(name), true
	}
	return runtime.DefaultHeaderMatcher(name)
}

// maxRequest bounds the JSON of an admin route, and bodyTime how long it may take
// to arrive.
const (
	maxRequest = 4 << 20
	bodyTime   = 30 * time.Second
)

// LimitBody bounds the size of request bodies and the time that they may take,
// so that a client that sends without end, or hardly at all, holds nothing up.
func LimitBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			rc := http.NewResponseController(w)
			_ = rc.SetReadDeadline(time.Now().Add(bodyTime)) // what cannot have one cannot hang either
			defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
		}
		h.ServeHTTP(w, r)
	})
}

// edge is the whole HTTP surface of a service.
func (s *Server) edge() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(s.opt.OpenAPI) //nolint:errcheck // the client is gone, or it has it all
	})
	metrics := promhttp.HandlerFor(s.opt.Registry, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		t, err := s.guard.admit(r.Header.Values("Authorization"), s.cfg.TrustedProxies.ClientOf(r))
		switch {
		case errors.Is(err, errLocked):
			answer(w, http.StatusTooManyRequests, err.Error())
			return
		case t.Scope == Issue:
			answer(w, http.StatusForbidden, "the scope issue does not allow this")
			return
		case err != nil:
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, "a master key or service token is needed in `authorization: Bearer`")
			return
		}
		metrics.ServeHTTP(w, r)
	})
	mux.Handle("/", s.handler)
	return mux
}

// readyz answers 200 when the service can do its work and is not draining.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.isDraining() {
		answer(w, http.StatusServiceUnavailable, "draining")
		return
	}
	if s.opt.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := s.opt.Ready(ctx); err != nil {
			answer(w, http.StatusServiceUnavailable, "not ready: what it needs does not answer")
			return
		}
	}
	answer(w, http.StatusOK, "ready")
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]string{"status": text}) //nolint:errcheck // the client is gone
}
