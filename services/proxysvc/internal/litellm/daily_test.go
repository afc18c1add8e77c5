package litellm_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// part is a share of a day: n requests of 63 tokens at some cost, and failures.
func part(dollars, n, failed int) string {
	return fmt.Sprintf(`{"spend":%d,"prompt_tokens":%d,"completion_tokens":%d,"cache_read_input_tokens":%d,"cache_creation_input_tokens":%d,
		"total_tokens":%d,"successful_requests":%d,"failed_requests":%d,"api_requests":%d}`, dollars, 61*n, 2*n, 10*n, 50*n, 63*n, n, failed, n+failed)
}

func TestDailyActivity(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	about := func(alias, team string) string { return fmt.Sprintf(`{"key_alias":%q,"team_id":%q}`, alias, team) }
	full := func(day, metrics, models, groups, providers, keys, entities string) string {
		return fmt.Sprintf(`{"date":"2026-05-%s","metrics":%s,"breakdown":{"mcp_servers":{},"models":{%s},"model_groups":{%s},"providers":{%s},"api_keys":{%s},"entities":{%s}}}`,
			day, metrics, models, groups, providers, keys, entities)
	}
	sub := func(name, metrics, metadata string) string {
		return fmt.Sprintf(`%q:{"metrics":%s,"metadata":%s}`, name, metrics, metadata)
	}
	ann, bob, acme := about("ann", "org-1"), about("bob", "org-2"), `{"team_alias":"Acme"}`
	const dates = "start_date=2026-05-04&end_date=2026-05-07"
	for _, tt := range []struct{ name, path, want string }{
		{
			"one team", "/team/daily/activity?team_ids=org-1&" + dates,
			full("07", part(8, 1, 0), sub("claude-opus-5", part(8, 1, 0), "{}"), "", sub("anthropic", part(8, 1, 0), "{}"), sub("ANN", part(8, 1, 0), ann), sub("org-1", part(8, 1, 0), acme)) + "," +
				full("04", part(3, 2, 0), sub("claude-opus-5", part(1, 1, 0), "{}")+","+sub("claude-sonnet-5", part(2, 1, 0), "{}"), "",
					sub("anthropic", part(3, 2, 0), "{}"), sub("ANN", part(3, 2, 0), ann), sub("org-1", part(3, 2, 0), acme)),
		},
		{
			"a failure counts as a request", "/team/daily/activity?start_date=2026-05-06&end_date=2026-05-06",
			full("06", part(4, 1, 1), sub("gpt-5", part(4, 1, 1), "{}"), "", sub("openai", part(4, 1, 1), "{}"), sub("BOB", part(4, 1, 1), "{}"), sub("org-2", part(4, 1, 1), `{"team_alias":"org-2"}`)),
		},
		{
			"a model of all teams but one", "/team/daily/activity?exclude_team_ids=org-2&model=claude-sonnet-5&" + dates,
			full("04", part(2, 1, 0), sub("claude-sonnet-5", part(2, 1, 0), "{}"), "", sub("anthropic", part(2, 1, 0), "{}"), "", sub("org-1", part(2, 1, 0), acme)),
		},
		{
			"a key of the team", "/team/daily/activity?team_ids=org-2&api_key=" + w.bob + "&" + dates,
			full("06", part(4, 1, 1), sub("gpt-5", part(4, 1, 1), "{}"), sub("group-gpt-5", part(4, 1, 1), "{}"), sub("openai", part(4, 1, 1), "{}"), sub("BOB", part(4, 1, 1), bob), sub("org-2", part(4, 1, 1), "{}")),
		},
		{"a key of another team", "/team/daily/activity?team_ids=org-1&api_key=" + w.bob + "&" + dates, ""},
		{
			"a session", "/user/daily/activity?user_id=s-ann&start_date=2026-05-05&end_date=2026-05-07",
			full("07", part(8, 1, 0), sub("claude-opus-5", part(8, 1, 0), "{}"), sub("group-claude-opus-5", part(8, 1, 0), "{}"),
				sub("anthropic", part(8, 1, 0), "{}"), sub("ANN", part(8, 1, 0), "{}"), sub("s-ann", part(8, 1, 0), "{}")),
		},
		{
			"everybody", "/user/daily/activity?start_date=2026-05-05&end_date=2026-05-06",
			full("06", part(4, 1, 1), sub("gpt-5", part(4, 1, 1), "{}"), "", sub("openai", part(4, 1, 1), "{}"), sub("BOB", part(4, 1, 1), "{}"), ""),
		},
		{
			"tags", "/tag/daily/activity?tags=t-ann,t-none&start_date=2026-05-07&end_date=2026-05-07",
			full("07", part(8, 1, 0), "", "", "", "", sub("t-ann", part(8, 1, 0), "{}")),
		},
		{"nothing", "/user/daily/activity?start_date=2026-04-01&end_date=2026-04-02", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := w.in(t)
			got := s.must(http.MethodGet, tt.path, "")
			s.want(got["results"], strings.NewReplacer("ANN", w.annToken, "BOB", w.bobToken).Replace("["+tt.want+"]"))
		})
	}
}

func TestPagesOfDailyActivity(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	const path = "/team/daily/activity?start_date=2026-05-01&end_date=2026-05-31&page_size=2&page="
	for page, want := range map[string]string{
		"1": `{"total_spend":12,"total_prompt_tokens":122,"total_completion_tokens":4,"total_tokens":126,"total_api_requests":3,
			"total_successful_requests":2,"total_failed_requests":1,"total_cache_read_input_tokens":20,"total_cache_creation_input_tokens":100,
			"page":1,"total_pages":2,"has_more":true}`,
		"2": `{"total_spend":3,"total_prompt_tokens":122,"total_completion_tokens":4,"total_tokens":126,"total_api_requests":2,
			"total_successful_requests":2,"total_failed_requests":0,"total_cache_read_input_tokens":20,"total_cache_creation_input_tokens":100,
			"page":2,"total_pages":2,"has_more":false}`,
	} {
		w.want(w.must(http.MethodGet, path+page, "")["metadata"], want)
	}
	for path, message := range map[string]string{
		"/team/daily/activity": "Please provide start_date and end_date",
		"/tag/daily/activity?start_date=2026-05-01&end_date=2026-05-31&model=m":               "sums of tags are not kept by model or key: leave model and api_key out",
		"/user/daily/activity?start_date=2026-05-01&end_date=2026-05-31&user_id=u&api_key=sk": "user_id and api_key cannot both be given: a key has one user",
	} {
		code, got := w.send(http.MethodGet, path, master, "")
		w.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
}
