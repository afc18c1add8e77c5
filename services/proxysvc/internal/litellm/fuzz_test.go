package litellm_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzREST sends any body and query to every route. Whatever they are, the answer
// is JSON, never says that the service failed, and shows no secret that it was not
// given.
func FuzzREST(f *testing.F) {
	routes := routesOf(f)
	queries := []string{
		"start_date=2026-05-01&end_date=2026-05-07&page=2147483647&page_size=-1&limit=1&summarize=x",
		"start_date=2026-05-01+00:00:00&end_date=9999-12-31+23:59:59&min_spend=NaN&sort_by=spend&api_key=KEY&key=KEY&user_id=%00",
		"start_date=2026-05-01&end_date=2026-05-07&team_ids=%00&tags=%00,a&model=%00&user_id=a%00b",
		"model=%ff",
	}
	for i := range routes {
		for n, body := range []string{
			`{}`, `null`, `[]`, `{"key":`, `{"max_budget":""}`, `{"max_budget":1e308,"rpm_limit":9007199254740993,"duration":"9223372036854775807mo"}`,
			`{"key":"KEY","keys":["KEY",null],"team_id":"org-1","team_ids":["org-1"],"user_id":"s","user_ids":[""]}`,
			`{"key":"KEY","budget_limits":[null,1,{"max_budget":"x"},{}],"model_max_budget":{"":null},"model_rpm_limit":{"m":-1},"temp_budget_increase":1}`,
			`{"key":"KEY","temp_budget_increase":0,"temp_budget_expiry":"0001-01-01","metadata":{"a":[{"b":1e300}]},"aliases":{"":""}}`,
			`{"key":"KEY","keys":[{"key":"KEY","max_budget":-0.0}],"models":["\ud800",7],"tags":null,"duration":{"a":1}}`,
			`{"model":"claude-sonnet-5","messages":[[],{"a":null}],"completion_response":{"model":7,"usage":{"input_tokens":1e300}}}`,
		} {
			f.Add(i, body, queries[(i+n)%len(queries)])
		}
	}
	s := newStand(f)
	s.must(http.MethodPost, "/team/new", `{"team_id":"org-1"}`)
	key := s.generate(`{"key_alias":"kept"}`)
	f.Fuzz(func(t *testing.T, route int, body, query string) {
		s := *s
		s.t = t
		method, path, _ := strings.Cut(routes[uint(route)%uint(len(routes))], " ")
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		full := func(text string) string { return strings.ReplaceAll(text, "KEY", key) }
		code, answer := s.do(method, strings.Replace(path, "{key}", key, 1)+"?"+full(values.Encode()), full(body),
			http.Header{"Authorization": {"Bearer " + master}})
		if code >= 500 {
			t.Errorf("%s %s?%s %q = %d %v", method, path, query, body, code, answer)
		}
	})
}
