package litellm_test

import (
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"

	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
)

// routesOf lists the routes of the contract as "METHOD /path".
func routesOf(t testing.TB) []string {
	t.Helper()
	var routes []string
	methods := litellmv1.File_litellm_v1_litellm_service_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		rule, _ := proto.GetExtension(methods.Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			switch {
			case r.GetGet() != "":
				routes = append(routes, "GET "+r.GetGet())
			case r.GetPost() != "":
				routes = append(routes, "POST "+r.GetPost())
			default:
				t.Fatalf("%s has a route of another method", methods.Get(i).FullName())
			}
		}
	}
	return routes
}
