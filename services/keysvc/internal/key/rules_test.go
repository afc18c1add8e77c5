package key

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

func TestAttributesAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	debt, minus := -money.USD/2, int64(-1)
	for _, tt := range []struct {
		name string
		a    Attributes
		want string
	}{
		{"nothing is fine", Attributes{}, ""},
		{"an id of 200 characters is fine", Attributes{TeamID: strings.Repeat("ü", 200)}, ""},
		{"a long team", Attributes{TeamID: strings.Repeat("x", 201)}, "team_id has at most 200 characters"},
		{"a line break", Attributes{UserID: "a\nb"}, `user_id has a character that cannot be printed: '\n'`},
		{"a zero byte", Attributes{KeyAlias: "a\x00"}, `key_alias has a character that cannot be printed: '\x00'`},
		{"broken UTF-8", Attributes{KeyAlias: "a\xff"}, "key_alias is not valid UTF-8"},
		{"many models", Attributes{Models: slices.Repeat([]string{"m"}, 501)}, "models has at most 500 entries"},
		{"an empty model", Attributes{Models: []string{""}}, "an entry of models is required"},
		{"a negative budget", Attributes{Limits: Limits{MaxBudgetNanoUSD: &debt}}, "max_budget cannot be negative. Received: -0.5"},
		{"a negative limit", Attributes{Limits: Limits{TPMLimit: &minus}}, "tpm_limit cannot be negative. Received: -1"},
		{"a wrong window", Attributes{Limits: Limits{BudgetDuration: "soon"}}, `budget_duration: Unsupported duration unit, passed duration: "soon"; use a number and s, m, h, d, w or mo, such as 24h`},
		{"metadata that is no object", Attributes{Metadata: json.RawMessage(`[]`)}, "metadata is not a JSON object"},
		{"metadata of 64 KB and a byte", Attributes{Metadata: json.RawMessage(`{"a":"` + strings.Repeat("x", 65529) + `"}`)}, "metadata has at most 65536 bytes of JSON"},
		{"metadata with a backslash and u0000", Attributes{Metadata: json.RawMessage(`{"a":"\\u0000"}`)}, ""},
		{"metadata that Postgres cannot hold", Attributes{Metadata: json.RawMessage(`{"a":"\u0000"}`)}, "metadata cannot hold the character U+0000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err, got := tt.a.validate(), ""
			if err != nil {
				got = fault.Text(err)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPagesRefuseForeignTokens(t *testing.T) {
	t.Parallel()
	if last, size, err := (Page{Token: pageToken("key_1")}).read(); last != "key_1" || size != 100 || err != nil {
		t.Errorf("read = %q, %d, %v, want key_1, 100", last, size, err)
	}
	for _, p := range []Page{{Size: -1}, {Size: 1001}, {Token: "!"}, {Token: "AAAA"}} {
		if _, _, err := p.read(); fault.KindOf(err) != fault.Invalid {
			t.Errorf("page %+v: %v, want an Invalid fault", p, err)
		}
	}
}

func TestSandboxGetsTheBaseURLThatItsClientExpects(t *testing.T) {
	t.Parallel()
	s := Sandbox{URL: "https://llm.example.com", Secret: secret.New("sk-1")}
	if diff := cmp.Diff(map[string]string{
		"ANTHROPIC_API_KEY": "sk-1", "ANTHROPIC_BASE_URL": "https://llm.example.com",
		"LLM_PROXY_API_KEY": "sk-1", "LLM_PROXY_URL": "https://llm.example.com",
	}, s.Env()); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	doc, err := json.Marshal(s.OpenCode())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"$schema":"https://opencode.ai/config.json","provider":{"anthropic":{"options":{"apiKey":"sk-1","baseURL":"https://llm.example.com/v1"}}}}`
	if string(doc) != want {
		t.Errorf("opencode.json = %s, want %s", doc, want)
	}
}
