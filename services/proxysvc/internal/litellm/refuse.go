package litellm

import (
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// restricted is a request about a key that can ask for restrictions that nothing
// here enforces.
type restricted interface {
	GetSpend() *wrapperspb.DoubleValue
	GetBudgetId() *wrapperspb.StringValue
	GetGuardrails() *structpb.Value
	GetPolicies() *structpb.Value
	GetEnforcedParams() *structpb.Value
	GetObjectPermission() *structpb.Value
	GetAutoRotate() *wrapperspb.BoolValue
}

// errSpend refuses to change what was spent.
var errSpend = fault.Errorf(fault.Invalid, "what was spent is a ledger, which is never changed: "+
	"to let a key go on, raise its max_budget, give it a temp_budget_increase, or make a new key")

// checkKey refuses what would make a key that may do more than was asked for.
func checkKey(r restricted) error {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"budget_id", r.GetBudgetId().GetValue() != ""},
		{"guardrails", !empty(r.GetGuardrails())},
		{"policies", !empty(r.GetPolicies())},
		{"enforced_params", !empty(r.GetEnforcedParams())},
		{"object_permission", !empty(r.GetObjectPermission())},
		{"auto_rotate", r.GetAutoRotate().GetValue()},
	} {
		if f.given {
			return errNotKept(f.name)
		}
	}
	return nil
}

// grouped is a request about a team, likewise.
type grouped interface {
	GetModelAliases() *structpb.Value
	GetTags() *structpb.Value
	GetGuardrails() *structpb.Value
	GetPolicies() *structpb.Value
	GetObjectPermission() *structpb.Value
	GetTeamMemberBudget() *wrapperspb.DoubleValue
}

func checkTeam(r grouped) error {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"model_aliases", !empty(r.GetModelAliases())},
		{"tags", !empty(r.GetTags())},
		{"guardrails", !empty(r.GetGuardrails())},
		{"policies", !empty(r.GetPolicies())},
		{"object_permission", !empty(r.GetObjectPermission())},
		{"team_member_budget", r.GetTeamMemberBudget() != nil},
	} {
		if f.given {
			return errNotKept(f.name)
		}
	}
	return nil
}

func errNotKept(name string) error {
	return fault.Errorf(fault.Invalid, "%s is not kept here, so what was asked for would be without it: leave it out", name)
}

// empty says that a value asks for nothing.
func empty(v *structpb.Value) bool {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue == ""
	case *structpb.Value_BoolValue:
		return !k.BoolValue
	case *structpb.Value_NumberValue:
		return false
	case *structpb.Value_ListValue:
		return len(k.ListValue.GetValues()) == 0
	case *structpb.Value_StructValue:
		return len(k.StructValue.GetFields()) == 0
	}
	return true
}
