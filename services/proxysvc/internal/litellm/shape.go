package litellm

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// admin is who LiteLLM says made things that the master key made.
const admin = "default_user_id"

func generated(k *keysv1.Key, secret string, b ledger.Balance) *litellmv1.GenerateKeyResponse {
	l := limitsOf(k.GetLimits())
	return &litellmv1.GenerateKeyResponse{
		Key: secret, KeyName: k.GetKeyName(), Token: k.GetToken(), TokenId: k.GetToken(),
		KeyAlias: text(k.GetKeyAlias()), Duration: text(k.GetDuration()), Expires: k.GetExpiresAt(), Models: k.GetModels(),
		Spend: usd(b.Spent), MaxBudget: dollars(l.MaxBudgetNanoUsd), UserId: text(k.GetUserId()), TeamId: text(k.GetTeamId()),
		MaxParallelRequests: number(l.MaxParallelRequests), TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit),
		BudgetDuration: text(l.GetBudgetDuration()), Metadata: object(k.GetMetadata()),
		Config: object(nil), Permissions: object(nil), ModelMaxBudget: modelBudgets(l.GetModelMaxBudget()),
		ModelRpmLimit: modelCounts(l.GetModelRpmLimit()), ModelTpmLimit: modelCounts(l.GetModelTpmLimit()),
		Aliases: aliases(k.GetAliases()), Tags: list(k.GetTags()), Blocked: onlyTrue(k.GetBlocked()),
		AllowedRoutes: k.GetAllowedRoutes(), SoftBudget: dollars(l.SoftBudgetNanoUsd), BudgetLimits: budgets(l.GetBudgetLimits()),
		CreatedBy: admin, UpdatedBy: admin, CreatedAt: k.GetCreatedAt(), UpdatedAt: k.GetUpdatedAt(),
	}
}

func keyInfo(k *keysv1.Key, b ledger.Balance) *litellmv1.KeyInfo {
	l := limitsOf(k.GetLimits())
	info := &litellmv1.KeyInfo{
		KeyName: k.GetKeyName(), KeyAlias: text(k.GetKeyAlias()), Spend: usd(b.Spent), Expires: k.GetExpiresAt(), Models: k.GetModels(),
		Aliases: aliases(k.GetAliases()), Config: object(nil), UserId: text(k.GetUserId()), TeamId: text(k.GetTeamId()), Permissions: object(nil),
		MaxParallelRequests: number(l.MaxParallelRequests), Metadata: keyMetadata(k), Blocked: onlyTrue(k.GetBlocked()),
		TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit), MaxBudget: dollars(l.MaxBudgetNanoUsd), BudgetDuration: text(l.GetBudgetDuration()),
		BudgetResetAt: resets(b), ModelSpend: object(nil), ModelMaxBudget: modelBudgets(l.GetModelMaxBudget()),
		CreatedAt: k.GetCreatedAt(), CreatedBy: admin, UpdatedAt: k.GetUpdatedAt(), UpdatedBy: admin,
		AllowedRoutes: k.GetAllowedRoutes(), BudgetLimits: budgets(l.GetBudgetLimits()), LastRotationAt: k.GetRotatedAt(),
	}
	if l.SoftBudgetNanoUsd != nil {
		info.LitellmBudgetTable = fields(map[string]*structpb.Value{"soft_budget": structpb.NewNumberValue(usd(l.GetSoftBudgetNanoUsd()))})
	}
	return info
}

// keyMetadata is the caller's metadata with what LiteLLM keeps among it.
func keyMetadata(k *keysv1.Key) *structpb.Struct {
	l := limitsOf(k.GetLimits())
	m := proto.CloneOf(object(k.GetMetadata()))
	if m.Fields == nil {
		m.Fields = map[string]*structpb.Value{}
	}
	if tags := list(k.GetTags()); tags != nil {
		m.Fields["tags"] = structpb.NewListValue(tags)
	}
	if s := modelCounts(l.GetModelRpmLimit()); s != nil {
		m.Fields["model_rpm_limit"] = structpb.NewStructValue(s)
	}
	if s := modelCounts(l.GetModelTpmLimit()); s != nil {
		m.Fields["model_tpm_limit"] = structpb.NewStructValue(s)
	}
	if l.TempBudgetIncreaseNanoUsd != nil {
		m.Fields["temp_budget_increase"] = structpb.NewNumberValue(usd(l.GetTempBudgetIncreaseNanoUsd()))
		m.Fields["temp_budget_expiry"] = structpb.NewStringValue(stamp(l.GetTempBudgetExpiresAt().AsTime()))
	}
	return m
}

// keyRow is LiteLLM's whole row of a key: its info and its token.
func keyRow(k *keysv1.Key, b ledger.Balance) (*structpb.Struct, error) {
	row, err := structOf(keyInfo(k, b))
	if err != nil {
		return nil, err
	}
	row.Fields["token"] = structpb.NewStringValue(k.GetToken())
	return row, nil
}

func teamRow(t *keysv1.Team, b ledger.Balance) *litellmv1.NewTeamResponse {
	l := limitsOf(t.GetLimits())
	return &litellmv1.NewTeamResponse{
		TeamId: t.GetTeamId(), TeamAlias: text(t.GetTeamAlias()),
		MembersWithRoles: []*litellmv1.TeamMember{{UserId: text(admin), Role: "admin"}},
		Metadata:         object(t.GetMetadata()), TpmLimit: number(l.TpmLimit), RpmLimit: number(l.RpmLimit), MaxBudget: dollars(l.MaxBudgetNanoUsd),
		BudgetDuration: text(l.GetBudgetDuration()), Models: t.GetModels(), Blocked: t.GetStatus() != keysv1.TeamStatus_TEAM_STATUS_ACTIVE,
		Spend: usd(b.Spent), MaxParallelRequests: number(l.MaxParallelRequests), BudgetResetAt: resets(b),
		SoftBudget: dollars(l.SoftBudgetNanoUsd), BudgetLimits: budgets(l.GetBudgetLimits()),
		CreatedAt: t.GetCreatedAt(), UpdatedAt: t.GetUpdatedAt(),
	}
}

// structOf is a message as the JSON object that its REST form is.
func structOf(m proto.Message) (*structpb.Struct, error) {
	doc, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write a row: %w", err)
	}
	s := &structpb.Struct{}
	if err := json.Unmarshal(doc, s); err != nil {
		return nil, fmt.Errorf("read a row: %w", err)
	}
	return s, nil
}

func fields(f map[string]*structpb.Value) *structpb.Struct { return &structpb.Struct{Fields: f} }

func text(s string) *wrapperspb.StringValue {
	if s == "" {
		return nil
	}
	return wrapperspb.String(s)
}

func dollars(nano *int64) *wrapperspb.DoubleValue {
	if nano == nil {
		return nil
	}
	return wrapperspb.Double(usd(*nano))
}

func number(n *int64) *wrapperspb.DoubleValue {
	if n == nil {
		return nil
	}
	return wrapperspb.Double(float64(*n))
}

// onlyTrue is null for false, as LiteLLM has it.
func onlyTrue(b bool) *wrapperspb.BoolValue {
	if !b {
		return nil
	}
	return wrapperspb.Bool(true)
}

func resets(b ledger.Balance) *timestamppb.Timestamp {
	if b.ResetsAt.IsZero() {
		return nil
	}
	return timestamppb.New(b.ResetsAt)
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

// aliases is a JSON object, never null.
func aliases(m map[string]string) *structpb.Struct {
	s := fields(map[string]*structpb.Value{})
	for name, model := range m {
		s.Fields[name] = structpb.NewStringValue(model)
	}
	return s
}

// modelBudgets is a JSON object, never null.
func modelBudgets(m map[string]*keysv1.BudgetLimit) *structpb.Struct {
	s := fields(map[string]*structpb.Value{})
	for model, b := range m {
		s.Fields[model] = structpb.NewStructValue(fields(map[string]*structpb.Value{
			"budget_limit": structpb.NewNumberValue(usd(b.GetMaxBudgetNanoUsd())),
			"time_period":  textOrNull(b.GetBudgetDuration()),
		}))
	}
	return s
}

// budgets is a JSON array, null when it is empty.
func budgets(bs []*keysv1.BudgetLimit) *structpb.ListValue {
	if len(bs) == 0 {
		return nil
	}
	l := &structpb.ListValue{}
	for _, b := range bs {
		l.Values = append(l.Values, structpb.NewStructValue(fields(map[string]*structpb.Value{
			"budget_duration": textOrNull(b.GetBudgetDuration()),
			"max_budget":      structpb.NewNumberValue(usd(b.GetMaxBudgetNanoUsd())),
		})))
	}
	return l
}

// modelCounts is a JSON object, null when it is empty.
func modelCounts(m map[string]int64) *structpb.Struct {
	if len(m) == 0 {
		return nil
	}
	s := fields(map[string]*structpb.Value{})
	for model, n := range m {
		s.Fields[model] = structpb.NewNumberValue(float64(n))
	}
	return s
}

func textOrNull(s string) *structpb.Value {
	if s == "" {
		return structpb.NewNullValue()
	}
	return structpb.NewStringValue(s)
}
