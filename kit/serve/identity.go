package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/proliferate-ai/llm-proxy/kit/env"
)

// Identity is the certificate that a service shows to the others, on both ends of
// a call, and the authorities whose certificates it takes from them. It is read
// from files anew at every handshake, so a change needs no restart; files that
// cannot be used, such as half of a change, leave what was read before in force.
// Connections that are open stay open.
type Identity struct {
	cert, key, ca string // paths

	mu      sync.Mutex
	current material
	failing bool
	note    *zap.Logger
}

// material is what the files held.
type material struct {
	text [3][]byte
	own  tls.Certificate
	pool *x509.CertPool
}

// LoadIdentity reads three PEM files: the certificate with what leads to its
// authority, its key, and the authorities.
func LoadIdentity(cert, key, ca string) (*Identity, error) {
	i := &Identity{cert: cert, key: key, ca: ca, note: zap.NewNop()}
	m, err := i.read()
	i.current = m
	return i, err
}

// Names of the settings.
const (
	certName = "LLM_PROXY_TLS_CERT_FILE"
	keyName  = "LLM_PROXY_TLS_KEY_FILE"
	caName   = "LLM_PROXY_TLS_CA_FILE"
)

// ReadIdentity makes the identity that LLM_PROXY_TLS_CERT_FILE,
// LLM_PROXY_TLS_KEY_FILE and LLM_PROXY_TLS_CA_FILE name; nil when none is set.
func ReadIdentity(r *env.Reader) *Identity {
	cert, key, ca := r.String(certName, ""), r.String(keyName, ""), r.String(caName, "")
	if cert+key+ca == "" {
		return nil
	}
	missing := false
	for name, path := range map[string]string{certName: cert, keyName: key, caName: ca} {
		if path == "" {
			r.Fault(name, "not set; %s, %s and %s belong together", certName, keyName, caName)
			missing = true
		}
	}
	if missing {
		return nil
	}
	i, err := LoadIdentity(cert, key, ca)
	if err != nil {
		r.Fault(certName+", "+keyName+" or "+caName, "%v", err)
		return nil
	}
	return i
}

// read looks at the files. Its errors name files and tell nothing of a key.
func (i *Identity) read() (material, error) {
	var m material
	for n, path := range []string{i.cert, i.key, i.ca} {
		text, err := os.ReadFile(path) //nolint:gosec // the operator's own file
		if err != nil {
			return m, err
		}
		m.text[n] = text
	}
	var err error
	if m.own, err = tls.X509KeyPair(m.text[0], m.text[1]); err != nil {
		return m, fmt.Errorf("%s with %s: %w", i.cert, i.key, err)
	}
	m.pool = x509.NewCertPool()
	if !m.pool.AppendCertsFromPEM(m.text[2]) {
		return m, fmt.Errorf("%s holds no certificate", i.ca)
	}
	return m, nil
}

// now is what counts at this moment.
func (i *Identity) now() material {
	i.mu.Lock()
	defer i.mu.Unlock()
	m, err := i.read()
	switch {
	case err != nil:
		if !i.failing {
			i.note.Error("certificates not reloaded; those from before stay in force", zap.Error(err))
		}
	case !m.same(i.current):
		i.note.Info("certificates reloaded", zap.Time("expires_at", m.own.Leaf.NotAfter))
		i.current = m
	}
	i.failing = err != nil
	return i.current
}

func (m material) same(o material) bool {
	return bytes.Equal(m.text[0], o.text[0]) && bytes.Equal(m.text[1], o.text[1]) && bytes.Equal(m.text[2], o.text[2])
}

// observe has reloads logged, and tells when the certificate expires.
func (i *Identity) observe(name string, opt Options) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.note = opt.Log
	promauto.With(opt.Registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: name + "_certificate_expires_timestamp_seconds",
		Help: "When the certificate expires that is shown to other services.",
	}, func() float64 { return float64(i.now().own.Leaf.NotAfter.Unix()) })
}

// transport makes gRPC's credentials of an identity; of none: in the clear.
func (i *Identity) transport() credentials.TransportCredentials {
	if i == nil {
		return insecure.NewCredentials()
	}
	return mutual{i}
}

// mutual is TLS by which both ends prove themselves. Every handshake is made with
// the identity of its moment.
type mutual struct{ id *Identity }

func (m mutual) tls() credentials.TransportCredentials {
	now := m.id.now()
	return credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{now.own},
		RootCAs:      now.pool, ClientCAs: now.pool,
		ClientAuth: tls.RequireAndVerifyClientCert,
	})
}

// ClientHandshake implements credentials.TransportCredentials.
func (m mutual) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return m.tls().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials. The own gateway
// calls through memory, where there is nobody to prove anything to; it brings no
// certificate, so that its callers need credentials of their own.
func (m mutual) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == pipeAddr {
		return insecure.NewCredentials().ServerHandshake(conn)
	}
	return m.tls().ServerHandshake(conn)
}

// Info implements credentials.TransportCredentials.
func (mutual) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (m mutual) Clone() credentials.TransportCredentials { return m }

// OverrideServerName implements credentials.TransportCredentials.
func (mutual) OverrideServerName(string) error {
	return errors.New("the name of a server is that of its address")
}

// certified says whether the other end proved itself by a certificate.
func certified(info credentials.AuthInfo) bool {
	t, ok := info.(credentials.TLSInfo)
	return ok && len(t.State.VerifiedChains) > 0
}
