// Package scopetest walks the methods of a service with tokens of every scope, for
// tests.
package scopetest

import (
	"regexp"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

const (
	issue = "gateway-token-of-the-test"
	read  = "finance-token-of-the-test"
	admin = "operator-token-of-the-test"
)

// Settings give each scope a token, and make an address wait after two wrong ones.
func Settings() map[string]string {
	return map[string]string{
		"LLM_PROXY_AUTH_FAILURES": "2",
		"LLM_PROXY_ADMIN_TOKENS":  "gateway:issue:" + issue + ",finance:read:" + read + ",ops:admin:" + admin,
	}
}

// Walk calls every method of a service at addr that runs with Settings: the scope
// issue may call none, read those whose names begin like reads, admin all. Then it
// guesses until its address is told to wait, which locks nobody out who has a token.
// harmless is a method of reads that requires nothing.
func Walk(t *testing.T, addr string, service grpc.ServiceDesc, reads *regexp.Regexp, harmless, services string) {
	t.Helper()
	if got := call(t, addr, services, harmless); got != codes.OK {
		t.Fatalf("a service calls %s: %s", harmless, got)
	}
	for _, m := range service.Methods {
		method := "/" + service.ServiceName + "/" + m.MethodName
		if got := call(t, addr, issue, method); got != codes.PermissionDenied {
			t.Errorf("issue calls %s: %s", m.MethodName, got)
		}
		if got := call(t, addr, read, method); (got == codes.PermissionDenied) == reads.MatchString(m.MethodName) {
			t.Errorf("read calls %s: %s", m.MethodName, got)
		}
		if got := call(t, addr, admin, method); got == codes.PermissionDenied || got == codes.Unauthenticated {
			t.Errorf("admin calls %s: %s", m.MethodName, got)
		}
	}
	for _, want := range []codes.Code{codes.Unauthenticated, codes.Unauthenticated, codes.ResourceExhausted} {
		if got := call(t, addr, "wrong-token-of-the-test", harmless); got != want {
			t.Errorf("a wrong token: %s, want %s", got, want)
		}
	}
	if got := call(t, addr, read, harmless); got != codes.OK {
		t.Errorf("read, from a locked address: %s", got)
	}
	if got := call(t, addr, services, harmless); got != codes.OK {
		t.Errorf("a service, from a locked address: %s", got)
	}
}

func call(t *testing.T, addr, token, method string) codes.Code {
	t.Helper()
	conn, err := serve.Caller{Token: secret.New(token)}.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return status.Code(conn.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{}))
}
