package litellm

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// limited is a request that can set limits, of a key, a team or a session.
type limited interface {
	GetMaxBudget() *wrapperspb.DoubleValue
	GetSoftBudget() *wrapperspb.DoubleValue
	GetBudgetDuration() *wrapperspb.StringValue
	GetBudgetLimits() *structpb.ListValue
	GetTpmLimit() *wrapperspb.DoubleValue
	GetRpmLimit() *wrapperspb.DoubleValue
	GetMaxParallelRequests() *wrapperspb.DoubleValue
	GetModelMaxBudget() *structpb.Struct
	GetModelRpmLimit() *structpb.Struct
	GetModelTpmLimit() *structpb.Struct
	GetTempBudgetIncrease() *wrapperspb.DoubleValue
	GetTempBudgetExpiry() *wrapperspb.StringValue
}

// limitsFrom reads the limits that are given, and their names as the key service
// has them in masks.
func limitsFrom(r limited) (*keysv1.Limits, []string, error) {
	l := reader{limits: &keysv1.Limits{}}
	l.amount("max_budget", r.GetMaxBudget(), &l.limits.MaxBudgetNanoUsd)
	l.amount("soft_budget", r.GetSoftBudget(), &l.limits.SoftBudgetNanoUsd)
	l.count("tpm_limit", r.GetTpmLimit(), &l.limits.TpmLimit)
	l.count("rpm_limit", r.GetRpmLimit(), &l.limits.RpmLimit)
	l.count("max_parallel_requests", r.GetMaxParallelRequests(), &l.limits.MaxParallelRequests)
	if r.GetBudgetDuration() != nil {
		l.limits.BudgetDuration = r.GetBudgetDuration().GetValue()
		l.named("budget_duration")
	}
	l.budgets(r.GetBudgetLimits())
	l.modelBudgets(r.GetModelMaxBudget())
	l.modelCounts("model_rpm_limit", r.GetModelRpmLimit(), &l.limits.ModelRpmLimit)
	l.modelCounts("model_tpm_limit", r.GetModelTpmLimit(), &l.limits.ModelTpmLimit)
	l.increase(r.GetTempBudgetIncrease(), r.GetTempBudgetExpiry())
	return l.limits, l.paths, l.err
}

// reader reads limits until one is wrong.
type reader struct {
	limits *keysv1.Limits
	paths  []string
	err    error
}

func (l *reader) named(name string) { l.paths = append(l.paths, "limits."+name) }

func (l *reader) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

func (l *reader) amount(name string, v *wrapperspb.DoubleValue, to **int64) {
	if v == nil {
		return
	}
	nano, err := nanoFrom(name, v.GetValue())
	l.fail(err)
	*to = &nano
	l.named(name + "_nano_usd")
}

func (l *reader) count(name string, v *wrapperspb.DoubleValue, to **int64) {
	if v == nil {
		return
	}
	n, err := whole(name, v.GetValue())
	l.fail(err)
	*to = &n
	l.named(name)
}

// budgets reads [{"max_budget":5,"budget_duration":"1d"}].
func (l *reader) budgets(list *structpb.ListValue) {
	if list == nil {
		return
	}
	for i, v := range list.GetValues() {
		b, err := budgetFrom(fmt.Sprintf("budget_limits[%d]", i), v)
		l.fail(err)
		l.limits.BudgetLimits = append(l.limits.BudgetLimits, b)
	}
	l.named("budget_limits")
}

// modelBudgets reads {"claude-opus-5":{"budget_limit":5,"time_period":"1d"}}.
func (l *reader) modelBudgets(s *structpb.Struct) {
	if s == nil {
		return
	}
	l.limits.ModelMaxBudget = map[string]*keysv1.BudgetLimit{}
	for model, v := range s.GetFields() {
		b, err := budgetFrom("model_max_budget", v)
		l.fail(err)
		l.limits.ModelMaxBudget[model] = b
	}
	l.named("model_max_budget")
}

func (l *reader) modelCounts(name string, s *structpb.Struct, to *map[string]int64) {
	if s == nil {
		return
	}
	counts := map[string]int64{}
	for model, v := range s.GetFields() {
		n, ok := v.GetKind().(*structpb.Value_NumberValue)
		if !ok {
			l.fail(fault.Errorf(fault.Invalid, "%s needs a number for each model", name))
			continue
		}
		var err error
		counts[model], err = whole(name, n.NumberValue)
		l.fail(err)
	}
	*to = counts
	l.named(name)
}

// increase reads a temporary increase of the budget.
func (l *reader) increase(by *wrapperspb.DoubleValue, until *wrapperspb.StringValue) {
	if by == nil && until == nil {
		return
	}
	if by == nil || until == nil {
		l.fail(fault.Errorf(fault.Invalid, "temp_budget_increase and temp_budget_expiry are given together or not at all"))
		return
	}
	l.amount("temp_budget_increase", by, &l.limits.TempBudgetIncreaseNanoUsd)
	at, err := instantFrom("temp_budget_expiry", until.GetValue())
	l.fail(err)
	l.limits.TempBudgetExpiresAt = timestamppb.New(at)
	l.named("temp_budget_expires_at")
}

// budgetFrom reads a budget by either of the names that LiteLLM has for its
// fields.
func budgetFrom(name string, v *structpb.Value) (*keysv1.BudgetLimit, error) {
	fields := v.GetStructValue().GetFields()
	limit, window := fields["max_budget"], fields["budget_duration"]
	if limit == nil {
		limit = fields["budget_limit"]
	}
	if window == nil {
		window = fields["time_period"]
	}
	n, ok := limit.GetKind().(*structpb.Value_NumberValue)
	if !ok {
		return nil, fault.Errorf(fault.Invalid, "%s needs a budget with a number in max_budget or budget_limit", name)
	}
	nano, err := nanoFrom(name, n.NumberValue)
	return &keysv1.BudgetLimit{MaxBudgetNanoUsd: nano, BudgetDuration: window.GetStringValue()}, err
}

// nanoFrom is an amount to the nearest nano-dollar: clients compute in floats, and
// 0.1 + 0.2 is 0.3.
func nanoFrom(name string, dollars float64) (int64, error) {
	if dollars < 0 {
		return 0, fault.Errorf(fault.Invalid, "%s cannot be negative. Received: %v", name, dollars)
	}
	n, err := money.ParseUSD(strconv.FormatFloat(dollars, 'f', 9, 64))
	if err != nil {
		return 0, fault.Errorf(fault.Invalid, "%s must be an amount in USD, at most 9 billion. Received: %v", name, dollars)
	}
	return int64(n), nil
}

// most is the largest whole number that JSON's doubles tell from its neighbours.
const most = 1 << 53

func whole(name string, v float64) (int64, error) {
	if v < 0 || v > most || v != math.Trunc(v) {
		return 0, fault.Errorf(fault.Invalid, "%s must be a whole number that is not negative. Received: %v", name, v)
	}
	return int64(v), nil
}

// instantFrom reads a time as Python and JavaScript write it; without a zone it
// is UTC.
func instantFrom(name, text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fault.Errorf(fault.Invalid, "%s must be an instant such as 2026-05-01T12:00:00Z. Received: %.64q", name, text)
}
