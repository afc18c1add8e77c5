package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// suite is the running suite, as an administrator calls it.
type suite struct {
	proxyURL string
	keys     keysv1.KeyServiceClient
	teams    keysv1.TeamServiceClient
	proxy    proxyv1.ProxyServiceClient
	spend    proxyv1.SpendServiceClient
	billing  billingv1.BillingServiceClient
	outbox   outboxv1.OutboxServiceClient
	conns    []*grpc.ClientConn
}

// place is where the suite is.
type place struct {
	proxyURL string
	caller   serve.Caller
	targets  map[string]string
}

// findSuite looks at the ready file that was named, else at the environment,
// else at ./.llmproxy/ready.json. The certificates that the services demand are
// named in the environment, as theirs are.
func findSuite(readyFile string, getenv func(string) string) (place, error) {
	r := &env.Reader{Get: getenv}
	id := serve.ReadIdentity(r)
	if err := r.Err(); err != nil {
		return place{}, err
	}
	p, err := findPlace(readyFile, getenv)
	p.caller.Identity = id
	return p, err
}

func findPlace(readyFile string, getenv func(string) string) (place, error) {
	if readyFile == "" && getenv("KEYSVC_TARGET") != "" {
		return placeFromEnvironment(getenv)
	}
	if readyFile == "" {
		readyFile = ".llmproxy/ready.json"
	}
	text, err := os.ReadFile(readyFile) //nolint:gosec // the operator's own file
	if errors.Is(err, os.ErrNotExist) {
		return place{}, fmt.Errorf("the suite is not running here: there is no %s; start it with `make run`, or name its ready file with --ready-file", readyFile)
	}
	if err != nil {
		return place{}, err
	}
	var ready Ready
	if err := json.Unmarshal(text, &ready); err != nil {
		return place{}, fmt.Errorf("%s: %w", readyFile, err)
	}
	p := place{ready.ProxyURL, serve.Caller{Token: secret.New(ready.MasterKey)}, map[string]string{}}
	for _, s := range ready.Services {
		p.targets[s.Name] = strings.TrimPrefix(p.targets[s.Name]+","+s.GRPCAddr, ",")
	}
	return p, nil
}

func placeFromEnvironment(getenv func(string) string) (place, error) {
	master, _, _ := strings.Cut(getenv("LLM_PROXY_MASTER_KEY"), ",")
	p := place{getenv("LLM_PROXY_URL"), serve.Caller{Token: secret.New(master)}, map[string]string{}}
	var faults []error
	for _, name := range []string{"LLM_PROXY_URL", "LLM_PROXY_MASTER_KEY"} {
		if getenv(name) == "" {
			faults = append(faults, fmt.Errorf("%s is not set", name))
		}
	}
	for _, s := range services {
		name := s.prefix + "_TARGET"
		if p.targets[s.name] = getenv(name); p.targets[s.name] == "" {
			faults = append(faults, fmt.Errorf("%s is not set; it needs the gRPC address of %s, host:port", name, s.name))
		}
	}
	return p, errors.Join(faults...)
}

// connect makes the clients. Nothing is called yet.
func connect(p place) (*suite, error) {
	s := &suite{proxyURL: p.proxyURL}
	dial := func(name string) *grpc.ClientConn {
		conn, err := p.caller.Dial(p.targets[name])
		if err != nil {
			return nil
		}
		s.conns = append(s.conns, conn)
		return conn
	}
	keys, proxy, billing, outbox := dial("keysvc"), dial("proxysvc"), dial("billingsvc"), dial("outboxsvc")
	if len(s.conns) != len(services) {
		s.close()
		return nil, fmt.Errorf("the addresses of the suite are not usable: %v", p.targets)
	}
	s.keys, s.teams = keysv1.NewKeyServiceClient(keys), keysv1.NewTeamServiceClient(keys)
	s.proxy, s.spend = proxyv1.NewProxyServiceClient(proxy), proxyv1.NewSpendServiceClient(proxy)
	s.billing, s.outbox = billingv1.NewBillingServiceClient(billing), outboxv1.NewOutboxServiceClient(outbox)
	return s, nil
}

func (s *suite) close() {
	for _, c := range s.conns {
		c.Close() // nothing is lost
	}
}

// command parses the flags of an administrator's command and connects. The
// caller closes the suite.
func command(name string, args []string, more func(*flag.FlagSet)) (*suite, []string, error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	readyFile := fs.String("ready-file", "", "the running suite's ready `FILE`")
	if more != nil {
		more(fs)
	}
	var rest []string
	for { // flags may stand behind what they are about
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, nil, err
			}
			return nil, nil, errUsage // flag has shown it
		}
		if args = fs.Args(); len(args) == 0 {
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	p, err := findSuite(*readyFile, os.Getenv)
	if err != nil {
		return nil, nil, err
	}
	s, err := connect(p)
	return s, rest, err
}

// show prints a message as JSON.
func show(m proto.Message) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(text))
	return err
}
