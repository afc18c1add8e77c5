package key

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func TestLimitsAreRefusedByName(t *testing.T) {
	t.Parallel()
	debt, until := -money.USD, time.Unix(0, 0)
	many := map[string]int64{}
	for i := range 101 {
		many[strings.Repeat("m", i+1)] = 1
	}
	for _, tt := range []struct {
		name string
		f    Finer
		want string
	}{
		{"nothing is fine", Finer{}, ""},
		{"two windows are fine", Finer{BudgetLimits: []Budget{{BudgetDuration: "1d"}, {BudgetDuration: "1mo"}, {}}}, ""},
		{"a negative soft budget", Finer{SoftBudgetNanoUSD: &debt}, "soft_budget cannot be negative. Received: -1"},
		{"a negative budget in a window", Finer{BudgetLimits: []Budget{{}, {MaxBudgetNanoUSD: debt, BudgetDuration: "1d"}}}, "budget_limits[1].max_budget cannot be negative. Received: -1"},
		{"a window in which nothing fits", Finer{BudgetLimits: []Budget{{BudgetDuration: "0h"}}}, `budget_limits[0].budget_duration: "0h" is no window: it ends when it begins`},
		{"a window without an end", Finer{BudgetLimits: []Budget{{BudgetDuration: "9000000mo"}}}, `budget_limits[0].budget_duration: duration "9000000mo" is too long: it must end before the year 10000`},
		{"two budgets in one window", Finer{BudgetLimits: []Budget{{BudgetDuration: "24h"}, {BudgetDuration: "1d"}}}, `budget_limits[1].budget_duration: there is another budget with the window "1d"`},
		{"many windows", Finer{BudgetLimits: slices.Repeat([]Budget{{}}, 11)}, "budget_limits has at most 10 entries"},
		{"a negative budget of a model", Finer{ModelMaxBudget: map[string]Budget{"m": {MaxBudgetNanoUSD: debt}}}, `model_max_budget["m"].max_budget cannot be negative. Received: -1`},
		{"a limit of no model", Finer{ModelRPMLimit: map[string]int64{"": 1}}, "a model in model_rpm_limit is required"},
		{"a negative limit of a model", Finer{ModelTPMLimit: map[string]int64{"m": -1}}, `model_tpm_limit["m"] cannot be negative. Received: -1`},
		{"limits of many models", Finer{ModelRPMLimit: many}, "model_rpm_limit has at most 100 entries"},
		{"an increase without an end", Finer{TempBudgetIncreaseNanoUSD: &debt}, "temp_budget_increase and temp_budget_expires_at are given both, or neither"},
		{"an end without an increase", Finer{TempBudgetExpiresAt: &until}, "temp_budget_increase and temp_budget_expires_at are given both, or neither"},
		{"a decrease", Finer{TempBudgetIncreaseNanoUSD: &debt, TempBudgetExpiresAt: &until}, "temp_budget_increase cannot be negative. Received: -1"},
		{"an unknown mode", Finer{BudgetMode: "x"}, "budget_mode is not one that is known: hard or soft"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := textOf(Limits{Finer: tt.f}.validate()); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNetworksAndRoutesAreRefusedByName(t *testing.T) {
	t.Parallel()
	for network, ok := range map[string]bool{
		"10.0.0.0/8": true, "10.1.2.3/8": true, "192.0.2.1": true, "2001:db8::/32": true, "::1": true, "0.0.0.0/0": true,
		"10.0.0.0/33": false, "10.0.0": false, "::ffff:10.0.0.0/104": false, "fe80::1%eth0": false, "example.com": false, " 10.0.0.0/8": false,
	} {
		want := ""
		if !ok {
			want = `allowed_cidrs: "` + network + `" is not a network such as 10.0.0.0/8 or 2001:db8::/32`
		}
		if got := textOf(Attributes{AllowedCIDRs: []string{network}}.validate()); got != want {
			t.Errorf("%s: got %q, want %q", network, got, want)
		}
	}
	for route, ok := range map[string]bool{
		"/v1/messages": true, "/v1/models/*": true, "/*": true, "llm_api_routes": true, "info_routes": true,
		"v1/messages": false, "/v1/*/x": false, "/v1/messages?x=1": false, "*": false, "LLM": false,
	} {
		want := ""
		if !ok {
			want = `allowed_routes: "` + route + `" is neither a path such as /v1/messages or /v1/models/* nor a group such as llm_api_routes`
		}
		if got := textOf(Attributes{AllowedRoutes: []string{route}}.validate()); got != want {
			t.Errorf("%s: got %q, want %q", route, got, want)
		}
	}
}

func TestBoundsAreTheMost(t *testing.T) {
	t.Parallel()
	one, two, cents := int64(1), int64(2), money.USD/10
	dollar, five := money.USD, 5*money.USD
	until := time.Unix(0, 0)
	p := Policy{Bounds: Bounds{
		MaxBudgetNanoUSD: &dollar, RPMLimit: &one, TPMLimit: &one, MaxParallelRequests: &one, Duration: "31d", BudgetDuration: "1d",
	}}
	for _, tt := range []struct {
		name string
		a    Attributes
		want string
	}{
		{"what is left open is filled", Attributes{}, ""},
		{"as much as there is", Attributes{Duration: "1mo", Limits: Limits{MaxBudgetNanoUSD: &dollar, RPMLimit: &one, BudgetDuration: "24h"}}, ""},
		{"a budget", Attributes{Limits: Limits{MaxBudgetNanoUSD: &five}}, "max_budget is over max limit set in config - user_value=5; max_value=1"},
		{"requests", Attributes{Limits: Limits{RPMLimit: &two}}, "rpm_limit is over max limit set in config - user_value=2; max_value=1"},
		{"tokens", Attributes{Limits: Limits{TPMLimit: &two}}, "tpm_limit is over max limit set in config - user_value=2; max_value=1"},
		{"at once", Attributes{Limits: Limits{MaxParallelRequests: &two}}, "max_parallel_requests is over max limit set in config - user_value=2; max_value=1"},
		{"a life", Attributes{Duration: "32d"}, "duration is over max limit set in config - user_value=32d; max_value=31d"},
		{"a life without an end", Attributes{Duration: Forever}, "duration is over max limit set in config - user_value=-1; max_value=31d"},
		{"a window", Attributes{Limits: Limits{BudgetDuration: "25h"}}, "budget_duration is over max limit set in config - user_value=25h; max_value=1d"},
		{"a temporary increase", Attributes{Limits: Limits{MaxBudgetNanoUSD: &cents, Finer: Finer{TempBudgetIncreaseNanoUSD: &dollar, TempBudgetExpiresAt: &until}}}, "temp_budget_increase is over max limit set in config - user_value=1; max_value=0.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, err := p.complete(tt.a, false)
			if got := textOf(err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if l := a.Limits; err == nil && (l.MaxBudgetNanoUSD == nil || l.RPMLimit == nil || l.TPMLimit == nil ||
				l.MaxParallelRequests == nil || l.BudgetDuration == "" || a.Duration == "") {
				t.Errorf("attributes = %+v, want all filled", a)
			}
		})
	}
}

func TestPoliciesThatCannotBeKeptAreRefused(t *testing.T) {
	t.Parallel()
	debt, one, two := -money.USD, int64(1), int64(2)
	policies := map[string]Policy{
		"": {SessionDuration: "30d", Bounds: Bounds{Duration: "1mo", RPMLimit: &one}},
		"max_budget cannot be negative. Received: -1":                             {Bounds: Bounds{MaxBudgetNanoUSD: &debt}},
		"rpm_limit is over max limit set in config - user_value=2; max_value=1":   {Defaults: Defaults{Bounds: Bounds{RPMLimit: &two}}, Bounds: Bounds{RPMLimit: &one}},
		"duration is over max limit set in config - user_value=30d; max_value=7d": {SessionDuration: "30d", Bounds: Bounds{Duration: "7d"}},
		`duration: "0s" is no window: it ends when it begins`:                     {SessionDuration: "0s"},
		"an entry of models is required":                                          {Defaults: Defaults{Models: []string{""}}},
	}
	for _, want := range slices.Sorted(maps.Keys(policies)) {
		if got := textOf(policies[want].Validate()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return fault.Text(err)
}
