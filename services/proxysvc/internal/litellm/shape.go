package litellm

import (
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// admin is who LiteLLM says made things that the master key made.
const admin = "default_user_id"

func limitsFrom(budget, rpm, tpm, parallel *wrapperspb.DoubleValue, duration *wrapperspb.StringValue) (*keysv1.Limits, error) {
	l := &keysv1.Limits{BudgetDuration: duration.GetValue()}
	if budget != nil {
		if budget.GetValue() < 0 {
			return nil, fault.Errorf(fault.Invalid, "max_budget cannot be negative. Received: %v", budget.GetValue())
		}
		// To the nearest nano-dollar: clients compute in floats, and 0.1 + 0.2 is 0.3.
		n, err := money.ParseUSD(strconv.FormatFloat(budget.GetValue(), 'f', 9, 64))
		if err != nil {
			return nil, fault.Errorf(fault.Invalid, "max_budget must be an amount in USD, at most 9 billion. Received: %v", budget.GetValue())
		}
		nano := int64(n)
		l.MaxBudgetNanoUsd = &nano
	}
	var err error
	if l.RpmLimit, err = whole("rpm_limit", rpm); err != nil {
		return nil, err
	}
	if l.TpmLimit, err = whole("tpm_limit", tpm); err != nil {
		return nil, err
	}
	l.MaxParallelRequests, err = whole("max_parallel_requests", parallel)
	return l, err
}

func generated(resp *keysv1.CreateKeyResponse) *litellmv1.GenerateKeyResponse {
	k := resp.GetKey()
	l := limitsOf(k.GetLimits())
	return &litellmv1.GenerateKeyResponse{
		Key: resp.GetSecret(), KeyName: k.GetKeyName(), Token: k.GetToken(), TokenId: k.GetToken(),
		KeyAlias: text(k.GetKeyAlias()), Duration: text(k.GetDuration()), Expires: k.GetExpiresAt(), Models: k.GetModels(),
		MaxBudget: budgetOf(l), UserId: text(k.GetUserId()), TeamId: text(k.GetTeamId()),
		MaxParallelRequests: number(l.MaxParallelRequests), TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit),
		BudgetDuration: text(l.GetBudgetDuration()), Metadata: object(k.GetMetadata()),
		Config: object(nil), Permissions: object(nil), ModelMaxBudget: object(nil), Aliases: object(nil), Tags: list(k.GetTags()),
		CreatedBy: admin, UpdatedBy: admin, CreatedAt: k.GetCreatedAt(), UpdatedAt: k.GetUpdatedAt(),
	}
}

func keyInfo(k *keysv1.Key, spent float64) *litellmv1.KeyInfo {
	l := limitsOf(k.GetLimits())
	info := &litellmv1.KeyInfo{
		KeyName: k.GetKeyName(), KeyAlias: text(k.GetKeyAlias()), Spend: spent, Expires: k.GetExpiresAt(), Models: k.GetModels(),
		Aliases: object(nil), Config: object(nil), UserId: text(k.GetUserId()), TeamId: text(k.GetTeamId()), Permissions: object(nil),
		MaxParallelRequests: number(l.MaxParallelRequests), Metadata: object(k.GetMetadata()),
		TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit), MaxBudget: budgetOf(l), BudgetDuration: text(l.GetBudgetDuration()),
		ModelSpend: object(nil), ModelMaxBudget: object(nil),
		CreatedAt: k.GetCreatedAt(), CreatedBy: admin, UpdatedAt: k.GetUpdatedAt(), UpdatedBy: admin,
	}
	if k.GetBlocked() {
		info.Blocked = wrapperspb.Bool(true)
	}
	return info
}

func teamRow(t *keysv1.Team, spent float64) *litellmv1.NewTeamResponse {
	l := limitsOf(t.GetLimits())
	return &litellmv1.NewTeamResponse{
		TeamId: t.GetTeamId(), TeamAlias: text(t.GetTeamAlias()),
		MembersWithRoles: []*litellmv1.TeamMember{{UserId: text(admin), Role: "admin"}},
		Metadata:         object(t.GetMetadata()), TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit), MaxBudget: budgetOf(l),
		BudgetDuration: text(l.GetBudgetDuration()), Models: t.GetModels(), Blocked: t.GetStatus() != keysv1.TeamStatus_TEAM_STATUS_ACTIVE,
		Spend: spent, MaxParallelRequests: number(l.MaxParallelRequests), CreatedAt: t.GetCreatedAt(), UpdatedAt: t.GetUpdatedAt(),
	}
}

func budgetOf(l *keysv1.Limits) *wrapperspb.DoubleValue {
	if l == nil || l.MaxBudgetNanoUsd == nil {
		return nil
	}
	return wrapperspb.Double(usd(l.GetMaxBudgetNanoUsd()))
}

func number(n *int64) *wrapperspb.DoubleValue {
	if n == nil {
		return nil
	}
	return wrapperspb.Double(float64(*n))
}

// object is a JSON object, {} when there is none.
func object(s *structpb.Struct) *structpb.Struct {
	if s == nil {
		return &structpb.Struct{}
	}
	return s
}

// list is a JSON array, null when it is empty.
func list(texts []string) *structpb.ListValue {
	if len(texts) == 0 {
		return nil
	}
	l := &structpb.ListValue{}
	for _, t := range texts {
		l.Values = append(l.Values, structpb.NewStringValue(t))
	}
	return l
}

// limitsOf makes absent limits readable.
func limitsOf(l *keysv1.Limits) *keysv1.Limits {
	if l == nil {
		return &keysv1.Limits{}
	}
	return l
}
