package litellm_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// week is a ledger with requests of two sessions of two teams on three days. All
// costs are whole dollars.
type week struct {
	*stand
	ann, bob           string // plaintext keys
	annToken, bobToken string
}

func day(n int) time.Time { return time.Date(2026, 5, n, 10, 0, 0, 0, time.UTC) }

func newWeek(t *testing.T) week {
	t.Helper()
	w := week{stand: newStand(t)}
	w.must(http.MethodPost, "/team/new", `{"team_id":"org-1","team_alias":"Acme"}`)
	w.ann = w.generate(`{"key_alias":"ann","user_id":"s-ann","team_id":"org-1"}`)
	w.bob = w.generate(`{"key_alias":"bob","user_id":"s-bob","team_id":"org-2"}`)
	w.annToken, w.bobToken = virtualkey.Token(w.ann), virtualkey.Token(w.bob)
	by := func(alias, token, model string, dollars int64, at time.Time) *ledger.Settlement {
		return &ledger.Settlement{
			Request: ledger.Request{
				KeyID: "key_" + alias, Token: token, UserID: "s-" + alias, TeamID: map[string]string{"ann": "org-1", "bob": "org-2"}[alias],
				Model: model, ModelGroup: "group-" + model, ModelID: "d-1", Tags: []string{"t-" + alias}, Client: map[string]string{"end_user": "e"},
			},
			Cost: money.NanoUSD(dollars) * money.USD, EndedAt: at,
			Usage: pricing.Usage{InputTokens: 1, OutputTokens: 2, CacheReadTokens: 10, CacheWrite5mTokens: 20, CacheWrite1hTokens: 30},
		}
	}
	failed := by("bob", w.bobToken, "gpt-5", 0, day(6).Add(time.Hour))
	failed.Status, failed.HTTPStatus, failed.ErrorType, failed.Usage = ledger.Failed, 529, "overloaded_error", pricing.Usage{}
	w.spent(
		by("ann", w.annToken, "claude-opus-5", 1, day(4)), by("ann", w.annToken, "claude-sonnet-5", 2, day(4).Add(time.Minute)),
		by("bob", w.bobToken, "gpt-5", 4, day(6)), failed,
		by("ann", w.annToken, "claude-opus-5", 8, day(7)),
	)
	return w
}

func TestSpendLogsByDay(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	none := func(n int) string {
		return fmt.Sprintf(`{"startTime":"2026-05-%02d","spend":0,"users":{},"models":{}}`, n)
	}
	day4 := fmt.Sprintf(`{"startTime":"2026-05-04","spend":3,%q:3,"users":{"s-ann":3},"models":{"claude-opus-5":1,"claude-sonnet-5":2}}`, w.annToken)
	day6 := fmt.Sprintf(`{"startTime":"2026-05-06","spend":4,%q:4,"users":{"s-bob":4},"models":{"gpt-5":4}}`, w.bobToken)
	for _, tt := range []struct{ name, query, want string }{
		{"everybody, without the last day", "start_date=2026-05-03&end_date=2026-05-07", none(3) + "," + day4 + "," + none(5) + "," + day6 + "," + none(7)},
		{"a key", "start_date=2026-05-04&end_date=2026-05-06&api_key=" + w.ann, day4 + "," + none(5) + "," + none(6)},
		{"a token", "start_date=2026-05-04&end_date=2026-05-05&api_key=" + w.annToken, day4 + "," + none(5)},
		{"a session", "start_date=2026-05-06&end_date=2026-05-07&user_id=s-bob", day6 + "," + none(7)},
		{"a request", "start_date=2026-05-04&end_date=2026-05-05&request_id=req_1", fmt.Sprintf(`{"startTime":"2026-05-04","spend":1,%q:1,"users":{"s-ann":1},"models":{"claude-opus-5":1}},`, w.annToken) + none(5)},
		{"an unknown key", "start_date=2026-05-04&end_date=2026-05-05&api_key=sk-nobody", none(4) + "," + none(5)},
		{"a day with itself", "start_date=2026-05-04&end_date=2026-05-04", none(4)},
		{"an end before the start", "start_date=2026-05-04&end_date=2026-05-03", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := w.in(t)
			s.want(s.get(http.MethodGet, "/spend/logs?"+tt.query, ""), "["+tt.want+"]")
		})
	}
	for query, message := range map[string]string{
		"start_date=2026-05-04":                     `end_date must be of the form YYYY-MM-DD. Received: ""`,
		"start_date=4.5.2026&end_date=2026-05-06":   `start_date must be of the form YYYY-MM-DD. Received: "4.5.2026"`,
		"start_date=1000-01-01&end_date=2026-05-06": "there are too many days between start_date and end_date",
	} {
		code, got := w.send(http.MethodGet, "/spend/logs?"+query, master, "")
		w.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
}

func TestSpendLogRows(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	ids := func(query string) string {
		rows, _ := w.get(http.MethodGet, "/spend/logs?"+query, "").([]any)
		var out []string
		for _, r := range rows {
			row, _ := r.(map[string]any)
			out = append(out, fmt.Sprint(row["request_id"]))
		}
		return strings.Join(out, " ")
	}
	for query, want := range map[string]string{
		"": "req_5 req_4 req_3 req_2 req_1",
		"start_date=2026-05-04&end_date=2026-05-07&summarize=false": "req_4 req_3 req_2 req_1",
		"api_key=" + w.bob:                    "req_4 req_3",
		"user_id=s-ann":                       "req_5 req_2 req_1",
		"request_id=req_2":                    "req_2",
		"request_id=nothing":                  "",
		"api_key=" + w.bob + "&user_id=s-ann": "",
	} {
		if got := ids(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	rows, _ := w.get(http.MethodGet, "/spend/logs?request_id=req_2", "").([]any)
	w.want(rows[0], fmt.Sprintf(`{"request_id":"req_2","litellm_call_id":"req_2","call_type":"anthropic_messages","api_key":%q,"spend":2,
		"total_tokens":63,"prompt_tokens":61,"completion_tokens":2,"startTime":"2026-05-04T10:00:58.000000Z","endTime":"2026-05-04T10:01:00.000000Z",
		"completionStartTime":null,"request_duration_ms":2000,"model":"claude-sonnet-5","model_id":"d-1","model_group":"group-claude-sonnet-5",
		"custom_llm_provider":"anthropic","api_base":"","user":"s-ann","team_id":"org-1","end_user":"e","session_id":"s-ann","request_tags":["t-ann"],
		"status":"success","cache_hit":"None","cache_key":"Cache OFF","organization_id":null,"requester_ip_address":null,
		"mcp_namespaced_tool_name":null,"agent_id":null,"messages":{},"response":{},"proxy_server_request":{},
		"metadata":{"user_api_key":%q,"user_api_key_team_id":"org-1","user_api_key_user_id":"s-ann",
			"usage_object":{"input_tokens":1,"output_tokens":2,"cache_read_input_tokens":10,"cache_creation_input_tokens":50},
			"additional_usage_values":{"cache_read_input_tokens":10,"cache_creation_input_tokens":50},
			"cost_breakdown":{},"status":"success","error_information":null,"attempted_retries":0,"estimated":false}}`, w.annToken, w.annToken))
	failed, _ := w.get(http.MethodGet, "/spend/logs?request_id=req_4", "").([]any)
	row, _ := failed[0].(map[string]any)
	metadata, _ := row["metadata"].(map[string]any)
	w.want(pick(row, "status", "custom_llm_provider"), `{"status":"failure","custom_llm_provider":"openai"}`)
	w.want(metadata["error_information"], `{"error_code":"529","error_class":"overloaded_error"}`)
}

func TestSpendLogPages(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	dates := "start_date=" + url.QueryEscape("2026-05-01 00:00:00") + "&end_date=" + url.QueryEscape("2026-05-07 10:00:00")
	for query, want := range map[string]string{
		"":                                      "5 1: 5 4 3 2 1",
		"&page_size=2&page=2":                   "5 3: 3 2",
		"&page_size=2&page=9":                   "5 3:",
		"&team_id=org-2":                        "2 1: 4 3",
		"&user_id=s-ann":                        "3 1: 5 2 1",
		"&api_key=" + w.ann:                     "3 1: 5 2 1",
		"&api_key=sk-nobody":                    "0 0:",
		"&key_alias=bob":                        "2 1: 4 3",
		"&key_alias=bob&api_key=" + w.ann:       "0 0:",
		"&request_id=req_1":                     "1 1: 1",
		"&status_filter=failure":                "1 1: 4",
		"&status_filter=success":                "4 1: 5 3 2 1",
		"&min_spend=2&max_spend=4":              "2 1: 3 2",
		"&min_spend=0&max_spend=0":              "1 1: 4",
		"&model=gpt-5":                          "2 1: 4 3",
		"&model_id=d-2":                         "0 0:",
		"&end_user=e&model=claude-sonnet-5":     "1 1: 2",
		"&sort_by=spend&sort_order=asc":         "5 1: 4 1 2 3 5",
		"&sort_by=total_tokens&sort_order=desc": "5 1: 5 3 2 1 4",
		"&sort_by=startTime&sort_order=asc":     "5 1: 1 2 3 4 5",
	} {
		for _, path := range []string{"/spend/logs/v2?", "/spend/logs/ui?"} {
			page := w.must(http.MethodGet, path+dates+query, "")
			got := fmt.Sprintf("%v %v:", page["total"], page["total_pages"])
			data, _ := page["data"].([]any)
			for _, r := range data {
				row, _ := r.(map[string]any)
				got += " " + strings.TrimPrefix(fmt.Sprint(row["request_id"]), "req_")
				if _, ok := row["messages"]; ok {
					t.Error("a row of a page has messages")
				}
			}
			if got != want {
				t.Errorf("%s: %s, want %s", query, got, want)
			}
		}
	}
	for query, message := range map[string]string{
		"":                                 "Start date and end date are required",
		"start_date=2026-05-01&end_date=x": `start_date must be of the form YYYY-MM-DD HH:MM:SS. Received: "2026-05-01"`,
		dates + "&page_size=101":           "a page is numbered from 1 and has 1 to 100 entries",
		dates + "&sort_by=user":            `sort_by must be startTime, endTime, spend or total_tokens. Received: "user"`,
		dates + "&status_filter=ok":        `status_filter must be success or failure. Received: "ok"`,
		dates + "&min_spend=-1":            "min_spend cannot be negative. Received: -1",
	} {
		code, got := w.send(http.MethodGet, "/spend/logs/v2?"+query, master, "")
		w.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
}

func TestSpendReports(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	for _, tt := range []struct{ path, want string }{
		{"/global/spend", `{"spend":15,"max_budget":0}`},
		{"/global/spend/report?start_date=2026-05-04&end_date=2026-05-06", `[
			{"group_by_day":"2026-05-04","teams":[{"team_name":"Acme","total_spend":3,"metadata":[
				{"model":"claude-opus-5","spend":1,"total_tokens":63,"api_key":null},{"model":"claude-sonnet-5","spend":2,"total_tokens":63,"api_key":null}]}]},
			{"group_by_day":"2026-05-06","teams":[{"team_name":"org-2","total_spend":4,"metadata":[{"model":"gpt-5","spend":4,"total_tokens":63,"api_key":null}]}]}]`},
		{"/global/spend/report?start_date=2026-05-06&end_date=2026-05-07&team_id=org-1", `[
			{"group_by_day":"2026-05-07","teams":[{"team_name":"Acme","total_spend":8,"metadata":[{"model":"claude-opus-5","spend":8,"total_tokens":63,"api_key":null}]}]}]`},
		{"/global/spend/report?start_date=2026-05-04&end_date=2026-05-07&api_key=" + w.ann, `[{"api_key":"ANN","total_cost":11,"total_input_tokens":183,"total_output_tokens":6,
			"model_details":[{"model":"claude-opus-5","total_cost":9,"total_input_tokens":122,"total_output_tokens":4},
				{"model":"claude-sonnet-5","total_cost":2,"total_input_tokens":61,"total_output_tokens":2}]}]`},
		{"/global/spend/report?start_date=2026-05-04&end_date=2026-05-07&internal_user_id=s-bob", `[{"api_key":"BOB","total_cost":4,"total_input_tokens":61,"total_output_tokens":2,
			"model_details":[{"model":"gpt-5","total_cost":4,"total_input_tokens":61,"total_output_tokens":2}]}]`},
		{"/global/spend/report?start_date=2026-05-04&end_date=2026-05-07&group_by=api_key", `[{"api_key":"ANN","total_cost":11,"total_input_tokens":183,"total_output_tokens":6,"model_details":[]},
			{"api_key":"BOB","total_cost":4,"total_input_tokens":61,"total_output_tokens":2,"model_details":[]}]`},
		{"/global/spend/keys?limit=1", `[{"api_key":"ANN","key_alias":"ann","key_name":"sk-...` + w.ann[len(w.ann)-4:] + `","total_spend":11}]`},
		{"/global/spend/models?limit=2", `[{"model":"claude-opus-5","total_spend":9},{"model":"gpt-5","total_spend":4}]`},
		{"/global/spend/teams", `{"daily_spend":[{"date":"2026-05-04","Acme":3},{"date":"2026-05-06","org-2":4},{"date":"2026-05-07","Acme":8}],
			"teams":["Acme","org-2"],"total_spend_per_team":[{"team_id":"Acme","total_spend":11},{"team_id":"org-2","total_spend":4}]}`},
		{"/global/spend/tags", `{"spend_per_tag":[{"name":"t-ann","spend":11,"log_count":3},{"name":"t-bob","spend":4,"log_count":2}]}`},
		{"/global/spend/tags?tags=t-bob&start_date=2026-05-01&end_date=2026-05-31", `{"spend_per_tag":[{"name":"t-bob","spend":4,"log_count":2}]}`},
		{"/spend/tags?start_date=2026-05-07&end_date=2026-05-07", `[{"individual_request_tag":"t-ann","log_count":1,"total_spend":8}]`},
	} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			s := w.in(t)
			s.want(s.get(http.MethodGet, tt.path, ""), strings.NewReplacer("ANN", w.annToken, "BOB", w.bobToken).Replace(tt.want))
		})
	}
	for query, message := range map[string]string{
		"start_date=2026-05-04": "Please provide start_date and end_date",
		"start_date=2026-05-04&end_date=2026-05-04&group_by=customer": `group_by must be team or api_key; sums by customer are not kept. Received: "customer"`,
	} {
		code, got := w.send(http.MethodGet, "/global/spend/report?"+query, master, "")
		w.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
}
