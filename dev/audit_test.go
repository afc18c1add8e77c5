package dev

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
	"github.com/proliferate-ai/llm-proxy/sim/stripe"
)

const agrees = "verdict   the sums agree to the nano-dollar"

// auditSuite is a suite whose books are audited from the command line.
type auditSuite struct {
	*suite
	token   string // of who calls
	billing billingv1.BillingServiceClient
	outbox  outboxv1.OutboxServiceClient
}

func newAuditSuite(t *testing.T, env map[string]string) *auditSuite {
	t.Helper()
	s := &auditSuite{suite: newSuite(t), token: masterKey}
	s.env["OUTBOX_READ_RATE"] = "500"
	for k, v := range env {
		s.env[k] = v
	}
	s.start("keysvc")
	s.start("proxysvc")
	s.billing = billingv1.NewBillingServiceClient(s.start("billingsvc").dial(t))
	s.outbox = outboxv1.NewOutboxServiceClient(s.start("outboxsvc").dial(t))
	return s
}

// bill bills a team a thing, in dollars.
func (s *auditSuite) bill(team, thing string, dollars int64) {
	s.t.Helper()
	_, err := s.billing.RecordEvent(s.t.Context(), &billingv1.RecordEventRequest{
		IdempotencyKey: team + ":" + thing, TeamId: team, EventType: "compute", PriceNanoUsd: dollars * 1_000_000_000,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// command runs llmproxy with the suite's token.
func (s *auditSuite) command(args ...string) (string, int) {
	s.t.Helper()
	return s.llmproxy(s.token, args...)
}

// audit runs llmproxy audit and wants an exit status and texts in what it prints;
// those that begin with ! must not be there.
func (s *auditSuite) audit(code int, flags []string, texts ...string) {
	s.t.Helper()
	out, got := s.command(append([]string{"audit"}, flags...)...)
	if got != code {
		s.t.Errorf("llmproxy audit %v exits %d, want %d:\n%s", flags, got, code, out)
	}
	for _, text := range texts {
		text, not := strings.CutPrefix(text, "!")
		if strings.Contains(out, text) == not {
			s.t.Errorf("llmproxy audit %v has %q: %t, want %t:\n%s", flags, text, not, !not, out)
		}
	}
}

// exec changes the database behind everybody's back, and returns how many rows it did.
func (s *auditSuite) exec(sql string) int64 {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context())
	tag, err := conn.Exec(s.t.Context(), sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return tag.RowsAffected()
}

// useElsewhere has somebody else use credits of a team at Autumn.
func (s *auditSuite) useElsewhere(team, credits string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.env["AUTUMN_API_URL"]+"/v1/track",
		strings.NewReader(fmt.Sprintf(`{"customer_id":%q,"feature_id":"credits","value":%s,"overage_behavior":"overflow"}`, team, credits)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+autumnKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("track: %s, %v: %s", resp.Status, err, text)
	}
}

// chargeOf returns the id of a team's newest charge, in a state.
func (s *auditSuite) chargeOf(team string, state billingv1.ChargeState) string {
	s.t.Helper()
	var id string
	poll(s.t, func() bool {
		resp, err := s.billing.ListCharges(s.t.Context(), &billingv1.ListChargesRequest{TeamId: team, State: state})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, c := range resp.GetCharges() {
			id = c.GetChargeId()
		}
		return id != ""
	})
	return id
}

// TestAuditComparesEveryTeamWithAutumn has more teams than are read in a call,
// and then usage that is none of ours.
func TestAuditComparesEveryTeamWithAutumn(t *testing.T) {
	t.Parallel()
	s := newAuditSuite(t, nil)
	s.autumn.Change(autumn.Change{CustomerID: "team01"})
	s.useElsewhere("team01", "123.0000000001") // before our books of it begin
	for n := range 27 {
		s.bill(fmt.Sprintf("team%02d", n+1), "1", int64(20+n))
	}
	s.audit(0, nil, agrees, "$891 posted, $0 not taken, $0 wait", "sink      agrees with the books of 27 teams", "27 of 27 teams are read at the sink", "!FAULT", "!PENDING")
	s.useElsewhere("team02", "0.0000000003") // less than Autumn's arithmetic holds
	s.audit(0, nil, agrees, "sink      agrees with the books of 27 teams")

	// Somebody else uses credits: as much as a charge, and as no charge.
	s.useElsewhere("team07", "2600")
	s.useElsewhere("team08", "700")
	s.audit(1, nil, "sink      agrees with the books of 25 teams",
		"FAULT     team team07: double_charge: the sink applied charges twice", "its usage by $26 (2600 credits)",
		"charges "+s.chargeOf("team07", billingv1.ChargeState_CHARGE_STATE_POSTED),
		"FAULT     team team08: unexplained: ", "the sink's balance is off by $-7 (-700 credits), its usage by $7 (700 credits)", "charges none",
		"the sums do not agree: 2 faults, 0 still on their way")
	s.audit(0, []string{"--no-sink"}, "verdict   the books agree to the nano-dollar", "sink      was not asked (--no-sink)", "!FAULT")

	// What somebody has looked into and accepted is no fault any more.
	for _, team := range []string{"team07", "team08"} {
		recs, err := s.billing.ListReconciliations(t.Context(), &billingv1.ListReconciliationsRequest{TeamId: team, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		id := recs.GetReconciliations()[0].GetReconciliationId()
		if _, err := s.billing.AcceptDrift(t.Context(), &billingv1.AcceptDriftRequest{TeamId: team, ReconciliationId: id, Reason: "looked"}); err != nil {
			t.Fatal(err)
		}
	}
	s.audit(0, nil, agrees, "sink      agrees with the books of 27 teams")

	s.autumn.Change(autumn.Change{CustomerID: "team03", Delete: true})
	s.audit(1, nil, "sink      agrees with the books of 26 teams", "FAULT     team team03: no_balance: ")
	s.bill("team28", "1", 20)
	s.chargeOf("team28", billingv1.ChargeState_CHARGE_STATE_POSTED)
	s.autumn.Change(autumn.Change{CustomerID: "team28", Delete: true})
	s.exec(`update billing.balances set gate_basis = '' where team_id = 'team28'`) // as if it was never read before
	s.faults(autumn.Fault{CustomerID: "team05", Fault: autumn.FaultError503})
	s.audit(1, nil, "FAULT     team team28: charges were posted, and the sink knows no balance of the team",
		"PENDING   team team05: it is not compared with the sink: Autumn answered 503 service_unavailable", "2 faults, 1 still on their way", "sink      agrees with the books of 25 teams")
}

// TestAuditGoesThroughACycle audits a team before and after its month ends.
func TestAuditGoesThroughACycle(t *testing.T) {
	t.Parallel()
	s := newAuditSuite(t, nil)
	const month = 30 * 24 * time.Hour
	s.autumn.Advance(-month - time.Hour) // so that the cycle that begins now is over in our time
	s.autumn.Change(autumn.Change{CustomerID: "acme", NewCycle: true})
	s.bill("acme", "1", 20)
	s.audit(0, nil, agrees, "sink      agrees with the books of 1 teams")
	s.autumn.Advance(month + time.Hour)
	s.audit(0, nil, agrees, "sink      agrees with the books of 1 teams", "sink      began the books of 1 of them anew: a new cycle, or the first reading", "$20 posted", "!FAULT")
	s.bill("acme", "2", 30)
	s.audit(0, nil, agrees, "sink      agrees with the books of 1 teams", "!anew", "$50 posted")
	s.autumn.Grant("acme", autumn.Credits(500)) // a top-up
	s.audit(0, nil, agrees, "sink      agrees with the books of 1 teams", "!FAULT")
}

// TestAuditTellsWhatWaitsAndWhy has charges that are not posted, for all reasons
// that there are.
func TestAuditTellsWhatWaitsAndWhy(t *testing.T) {
	t.Parallel()
	s := newAuditSuite(t, nil)
	for _, team := range []string{"acme", "zeta"} {
		s.bill(team, "1", 20)
	}
	s.audit(0, nil, agrees)

	if out, code := s.command("outbox", "pause", "--team", "acme", "--reason", "looking"); code != 0 {
		t.Fatalf("pause: %s", out)
	}
	s.audit(0, nil, agrees) // nothing waits
	s.bill("acme", "2", 5)
	s.audit(1, nil, "$40 posted, $0 not taken, $5 wait", "PENDING   team acme: charges of $5 are not posted yet: posting is paused by ", ": looking", "sink      agrees with the books of 2 teams", "!FAULT", "!zeta")
	s.audit(0, []string{"--no-sink"}, "verdict   the books agree to the nano-dollar", "$5 wait")
	if out, code := s.command("outbox", "resume", "--team", "acme"); code != 0 {
		t.Fatalf("resume: %s", out)
	}
	s.audit(0, nil, agrees, "$45 posted")

	// Autumn takes half of a charge: that is over and done.
	s.faults(autumn.Fault{Path: "/v1/track", Fault: autumn.FaultPartial, Nth: 1})
	s.bill("acme", "3", 8)
	s.audit(0, nil, agrees, "$49 posted, $4 not taken, $0 wait")

	// The answers are lost, though the charges are applied: usage proves it.
	s.faults(autumn.Fault{Path: "/v1/track", Fault: autumn.FaultError503AfterApply})
	s.bill("acme", "4", 3)
	s.chargeOf("acme", billingv1.ChargeState_CHARGE_STATE_AMBIGUOUS)
	s.audit(0, nil, agrees, "$52 posted")

	// They are lost, and nothing is applied.
	s.faults(autumn.Fault{Path: "/v1/track", Fault: autumn.FaultAccepted202Lost})
	s.bill("acme", "5", 2)
	s.chargeOf("acme", billingv1.ChargeState_CHARGE_STATE_AMBIGUOUS)
	s.audit(1, nil, "PENDING   team acme: charges of $2 are in doubt", "0 faults, 1 still on their way")

	s.faults(autumn.Fault{Path: "/v1/track", Fault: autumn.FaultFeatureRenamed})
	s.bill("zeta", "2", 7)
	s.chargeOf("zeta", billingv1.ChargeState_CHARGE_STATE_DEAD)
	s.audit(1, nil, "PENDING   team zeta: charges of $7 were refused for good (llmproxy outbox dead --team zeta)", "!FAULT")
}

func (s *auditSuite) faults(rules ...autumn.Fault) {
	s.t.Helper()
	if err := s.autumn.SetFaults(rules...); err != nil {
		s.t.Fatal(err)
	}
}

// TestAuditWithoutAKey lets charges wait, which is meant, and has a wrong key,
// which is not.
func TestAuditWithoutAKey(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	s := newAuditSuite(t, map[string]string{"AUTUMN_API_KEY": "", "AUTUMN_API_KEY_FILE": key})
	change := func(to string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(to), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const books = "verdict   the books agree to the nano-dollar"
	s.bill("acme", "1", 20)
	s.audit(0, nil, "sink      none is configured: charges of $20 wait; nothing was read back", books, "!PENDING", "!FAULT")
	change(autumnKey)
	s.audit(0, nil, agrees, "$20 posted, $0 not taken, $0 wait", "!none is configured")
	const wrong = "am_sk_test_wrong_0123456789"
	change(wrong)
	s.bill("acme", "2", 30)
	s.bill("zeta", "1", 40)
	s.audit(1, nil, "PENDING   team acme: charges of $30 are not posted yet: nothing is posted: ", "PENDING   team zeta: charges of $40 ",
		"PENDING   1 teams are not compared with the sink: nothing is posted: ", "0 faults, 3 still on their way", "!"+wrong)
	s.audit(0, []string{"--no-sink"}, books, "$70 wait")
	change("")
	s.audit(0, nil, "sink      none is configured: charges of $70 wait", books)
	s.exec(`update billing.balances set granted_nano_usd = granted_nano_usd + 5 where team_id = 'acme'`)
	s.audit(1, nil, "FAULT     team acme: grants sum to ")
}

// TestAuditAtStripe has a sink that has no balances.
func TestAuditAtStripe(t *testing.T) {
	t.Parallel()
	const key = "sk_test_canary_0123456789"
	meter := stripe.New(stripe.Options{SecretKey: key})
	sink := httptest.NewServer(meter)
	t.Cleanup(sink.Close)
	s := newAuditSuite(t, map[string]string{"BILLING_SINK": "stripe", "STRIPE_API_KEY": key, "STRIPE_API_URL": sink.URL})
	s.bill("acme", "1", 20)
	s.bill("acme", "2", 30)
	s.audit(0, nil, agrees, "$50 posted", "Stripe's meters have no balance to read back", "!FAULT", "!PENDING")
	if got := meter.Applied()[meter.CustomerOf("acme")]; got.Value != 5_000_000_000 {
		t.Errorf("Stripe counted %d micro-credits, want 5,000,000,000", got.Value)
	}
	if err := meter.SetFaults(stripe.Fault{Path: "/v1/billing/meter_events", Fault: stripe.FaultDropAfterApply}); err != nil {
		t.Fatal(err)
	}
	s.bill("acme", "3", 4)
	s.chargeOf("acme", billingv1.ChargeState_CHARGE_STATE_AMBIGUOUS)
	s.audit(1, nil, "PENDING   team acme: charges of $4 are in doubt", "!FAULT")
	if err := meter.SetFaults(); err != nil {
		t.Fatal(err)
	}
	poll(t, func() bool { _, code := s.command("audit"); return code == 0 })
	s.exec(`update billing.charges set amount_nano_usd = 10 where charge_id = '` + s.chargeOf("acme", billingv1.ChargeState_CHARGE_STATE_POSTED) + `'`)
	s.audit(1, nil, "FAULT     team acme: charges sum to ")
}

// TestAuditFindsEverything damages the books in ways that an audit may overlook.
func TestAuditFindsEverything(t *testing.T) {
	t.Parallel()
	const finance = "finance-canary-0123456789"
	s := newAuditSuite(t, map[string]string{"LLM_PROXY_ADMIN_TOKENS": "ann:read:" + finance})
	proxy := "http://" + s.processes[1].http
	ask := func(key string) {
		t.Helper()
		var made struct{ Key string }
		if err := json.NewDecoder(call(t, http.MethodPost, proxy+"/key/generate", masterKey, key).Body).Decode(&made); err != nil {
			t.Fatal(err)
		}
		resp := call(t, http.MethodPost, proxy+"/v1/messages", made.Key, `{"model":"claude-haiku-4-5","max_tokens":20,"messages":[{"role":"user","content":"Hi"}]}`)
		if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v", resp.StatusCode, err)
		}
	}
	ask(`{"team_id":"acme"}`)
	ask(`{"user_id":"nobody"}`)
	s.bill("acme", "1", 20)
	s.audit(0, nil, agrees, "events    2 checked, 0 trusted", "!$0 in quarantine")

	// A row is billed to a team, at another cost than the ledger has.
	quarantine, err := s.billing.ListQuarantine(t.Context(), &billingv1.ListQuarantineRequest{})
	if err != nil || len(quarantine.GetRows()) != 1 {
		t.Fatalf("quarantine %v, %v, want a row", quarantine, err)
	}
	row := quarantine.GetRows()[0]
	_, err = s.billing.RerateQuarantine(t.Context(), &billingv1.RerateQuarantineRequest{
		Places: []*billingv1.LedgerPlace{{LogId: row.GetLogId(), Seq: row.GetSeq()}}, TeamId: "acme", CostNanoUsd: proto.Int64(77), Reason: "hers",
	})
	if err != nil {
		t.Fatal(err)
	}
	s.audit(0, nil, agrees, "$0 in quarantine")
	s.audit(0, nil, agrees, "events    0 checked, 3 trusted")

	s.exec(`update billing.billing_events set price_nano_usd = price_nano_usd + 1 where idempotency_key = 'acme:1'`)
	s.audit(0, nil, "events    0 checked, 3 trusted")
	s.audit(1, []string{"--full"}, "events    3 checked, 0 trusted", "FAULT     charge ", "checking every event")
	s.exec(`update billing.billing_events set price_nano_usd = price_nano_usd - 1 where idempotency_key = 'acme:1'`)
	s.audit(0, []string{"--full"}, agrees)

	s.exec(`insert into billing.balances (team_id, granted_nano_usd) select 'team' || i, 5 from generate_series(1, 103) i`)
	s.audit(1, nil, "FAULT     … and 3 more like the last one", "101 faults, 0 still on their way")
	s.exec(`delete from billing.balances where team_id like 'team%'`)

	poll(t, func() bool { // its rows are in its total
		return s.exec(`update spend.account_totals set cost_nano_usd = cost_nano_usd - 9 where kind = 'team' and id = 'acme'
			and requests = (select count(*) from spend.spend_logs where team_id = 'acme')`) == 1
	})
	s.audit(1, nil, "FAULT     team acme: billing has read $0.000000009 more than the ledger has", "totals say", "0 still on their way")
	s.exec(`update spend.account_totals set cost_nano_usd = cost_nano_usd + 9 where kind = 'team' and id = 'acme'`)
	s.exec(`update billing.cursors set seq = seq + 1`)
	s.audit(1, nil, "FAULT     the ledger cannot be billed to its end: ", "of its ")
	s.exec(`update billing.cursors set seq = seq - 1`)
	s.audit(0, nil, agrees)

	// Who wants only the books needs neither the outbox nor to change anything.
	s.processes[3].kill()
	s.audit(1, nil, "llmproxy audit: ", "!verdict")
	s.token = finance
	s.audit(0, []string{"--no-sink"}, "verdict   the books agree to the nano-dollar")
	s.audit(2, []string{"--nothing"}, "flag provided but not defined")
	s.audit(2, []string{"acme"}, "takes no arguments")
}
