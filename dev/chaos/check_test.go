package chaos

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// settleTimeout is how long the end of an answer may wait for the ledger: longer
// than a statement of the store may hang before the journal is used.
const settleTimeout = 15 * time.Second

// record is one request on the ledger: its row and the rows that adjust it.
type record struct {
	base        *proxyv1.SpendRow
	adjustments []*proxyv1.SpendRow
}

// messageID is the upstream's, as far as it is known.
func (r *record) messageID() string {
	for _, row := range append([]*proxyv1.SpendRow{r.base}, r.adjustments...) {
		if id := row.GetMessageId(); id != "" {
			return id
		}
	}
	return ""
}

// used is the sum of its rows, and cost what they cost.
func (r *record) used() (sum usage, cost int64) {
	for _, row := range append([]*proxyv1.SpendRow{r.base}, r.adjustments...) {
		u := row.GetUsage()
		sum = usage{
			sum.input + u.GetInputTokens(), sum.output + u.GetOutputTokens(), sum.write5m + u.GetCacheWrite_5MInputTokens(),
			sum.write1h + u.GetCacheWrite_1HInputTokens(), sum.read + u.GetCacheReadInputTokens(),
		}
		cost += row.GetCostNanoUsd()
	}
	return sum, cost
}

// verdict is what the checks found.
type verdict struct {
	s      *stand
	faults []string
	rows   int
	status map[string]int
	// unbilled is what was served and not billed, since its replica died, in
	// nano-dollars.
	unbilled *big.Int
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// check holds the ledger against what the clients saw and what the simulators
// know.
func (s *stand) check(all []attempt) *verdict {
	v := &verdict{s: s, status: map[string]int{}, unbilled: new(big.Int)}
	ledger, books := s.calm()
	v.faults = append(v.faults, ledger.GetFaults()...)
	v.faults = append(v.faults, books.GetFaults()...)
	rows := v.readLogs()
	if v.rows = len(rows); int64(v.rows) != ledger.GetRows() {
		v.fault("the logs have %d rows, the audit counts %d", v.rows, ledger.GetRows())
	}
	records := v.records(rows)
	v.budgets(records)
	truth := s.upstream.served(s.t)
	for i := range all {
		v.attempt(&all[i], records[all[i].name], truth[all[i].name])
		delete(records, all[i].name)
	}
	for name := range records {
		v.fault("the ledger has a request %q that no client made", name)
	}
	v.billing(ledger, books)
	return v
}

// readLogs reads every log from its beginning.
func (v *verdict) readLogs() []*proxyv1.SpendRow {
	t, spend := v.s.t, v.s.spend[0]
	logs, err := spend.ListLogs(t.Context(), &proxyv1.ListLogsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var rows []*proxyv1.SpendRow
	for _, log := range logs.GetLogs() {
		for seq := int64(0); ; {
			page, err := spend.ReadSpend(t.Context(), &proxyv1.ReadSpendRequest{LogId: log.GetLogId(), AfterSeq: seq, PageSize: 5000})
			if err != nil {
				v.fault("read log %d: %v", log.GetLogId(), err)
				break
			}
			for _, row := range page.GetRows() {
				if seq++; row.GetSeq() != seq {
					v.fault("log %d has a row %d where %d should be", log.GetLogId(), row.GetSeq(), seq)
				}
			}
			rows = append(rows, page.GetRows()...)
			if seq >= page.GetLastSeq() {
				break
			}
		}
	}
	return rows
}

// records puts rows and their adjustments together, by attempt.
func (v *verdict) records(rows []*proxyv1.SpendRow) map[string][]*record {
	byRequest := map[string]*record{}
	of := func(row *proxyv1.SpendRow) (*record, bool) {
		id, _, isAdjustment := strings.Cut(row.GetRequestId(), ".adj")
		if byRequest[id] == nil {
			byRequest[id] = &record{}
		}
		return byRequest[id], isAdjustment
	}
	seen := map[string]bool{}
	for _, row := range rows {
		r, isAdjustment := of(row)
		v.status[word(row.GetStatus())]++
		switch {
		case seen[row.GetRequestId()]:
			v.fault("request %s is on the ledger twice", row.GetRequestId())
		case isAdjustment:
			r.adjustments = append(r.adjustments, row)
		default:
			r.base = row
		}
		seen[row.GetRequestId()] = true
	}
	out := map[string][]*record{}
	for id, r := range byRequest {
		if r.base == nil {
			v.fault("request %s has adjustments and no row", id)
			continue
		}
		out[r.base.GetUserAgent()] = append(out[r.base.GetUserAgent()], r)
	}
	return out
}

// word is a status as the ledger spells it.
func word(s proxyv1.SpendStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "SPEND_STATUS_"))
}

// String lists what its rows cost.
func (r *record) String() string {
	text := fmt.Sprintf("%s (%s, %d", r.base.GetRequestId(), word(r.base.GetStatus()), r.base.GetCostNanoUsd())
	for _, row := range r.adjustments {
		text += fmt.Sprintf(" %+d", row.GetCostNanoUsd())
	}
	return text + ")"
}

// attempt checks one attempt of a client: what was served for it is on the
// ledger once.
func (v *verdict) attempt(a *attempt, on []*record, truth []served) {
	if len(on) > 1 || len(truth) > 1 {
		v.fault("attempt %s was served %d times and is on the ledger %d times", a.name, len(truth), len(on))
		return
	}
	if a.refusal == "billing_error" || a.refusal == "rate_limit_error" {
		if len(on)+len(truth) > 0 {
			v.fault("attempt %s was refused (%d) and is on the ledger %d times, served %d times", a.name, a.status, len(on), len(truth))
		}
		return
	}
	switch {
	case len(on) == 0 && len(truth) == 0:
		if a.complete {
			v.fault("attempt %s is complete, from nowhere", a.name)
		}
	case len(on) == 0:
		cost := byHand(v.s.t, truth[0].Model, truth[0].used)
		v.fault("served and not on the ledger: attempt %s (status %d), %s at replica %d, worth %s nano-dollars", a.name, a.status, truth[0].ID, a.replica, cost)
	case len(truth) == 0:
		if _, cost := on[0].used(); cost != 0 {
			v.fault("attempt %s was never served and costs %d: %v", a.name, cost, on[0].base)
		}
	default:
		v.compare(a, on[0], truth[0])
	}
}

// compare holds the usage on the ledger against the truth.
func (v *verdict) compare(a *attempt, r *record, truth served) {
	used, cost := r.used()
	status := r.base.GetStatus()
	if len(r.adjustments) > 1 {
		v.fault("adjusted twice: request %s with %+v; the simulator says %+v", r, used, truth.used)
	}
	// Each adjustment is rounded by itself.
	if diff := v.worth(r).Int64() - cost; max(diff, -diff) > int64(len(r.adjustments)) {
		v.fault("request %s costs %d, its usage %d", r, cost, cost+diff)
	}
	exact := used == truth.used
	if id := r.messageID(); id != "" && id != truth.ID {
		v.fault("request %s has message %s, and %s was served", r.base.GetRequestId(), id, truth.ID)
	}
	switch {
	case status == proxyv1.SpendStatus_SPEND_STATUS_COMPLETED:
		if !exact || !truth.Finished || r.base.GetEstimated() {
			v.fault("request %s is completed with %+v; the simulator says %+v, finished %v", r.base.GetRequestId(), used, truth.used, truth.Finished)
		}
		if !a.complete && !a.left && !a.died {
			v.fault("request %s of attempt %s is completed, and its client did not get the end: status %d, %v", r.base.GetRequestId(), a.name, a.status, a.err)
		}
	case a.complete && !exact:
		v.fault("attempt %s saw the end of %s with %+v; the simulator says %+v", a.name, r, used, truth.used)
		v.within(a, r, truth)
	default:
		v.within(a, r, truth)
	}
}

// within checks what ended early: the input is exact if it is known at all, the
// output is at least what the client received, at the simulator's four bytes to
// the token, and at most what the simulator sent, as the proxy estimates it: three
// bytes to the token after the one token of message_start.
func (v *verdict) within(a *attempt, r *record, truth served) {
	used, cost := r.used()
	most := 1 + (truth.used.output*4+2)/3
	status := r.base.GetStatus()
	if a.ask.guessed(r) {
		if most += envelope / 3; used.output > most || used.input > int64(len(a.ask.body()))/4 {
			v.fault("half an answer, %s, is billed as %+v; the simulator says %+v", r, used, truth.used)
		}
		return
	}
	if used.output > most {
		v.fault("request %s has %d tokens of output, at most %d were sent", r, used.output, most)
	}
	in, real := used, truth.used
	in.output, real.output = 0, 0
	known := r.messageID() != "" && status != proxyv1.SpendStatus_SPEND_STATUS_FAILED
	if known && in != real || !known && in != (usage{}) {
		v.fault("request %s, message %q, has input %+v, the simulator says %+v", r, r.messageID(), in, real)
	}
	if status == proxyv1.SpendStatus_SPEND_STATUS_ABANDONED && len(r.adjustments) == 0 {
		if diff := new(big.Int).Sub(byHand(v.s.t, truth.Model, truth.used), big.NewInt(cost)); diff.Sign() > 0 {
			v.unbilled.Add(v.unbilled, diff)
		}
		return // its replica died: what was last seen of it counts
	}
	if least := (a.bytes + 3) / 4; used.output < least {
		v.fault("request %s has %d tokens of output, and its client received %d bytes of it", r, used.output, a.bytes)
	}
}

// envelope is the most that is around the text of an answer in one piece, in
// bytes.
const envelope = 700

// guessed says that half an answer in one piece arrived, whose tokens, input
// included, could only be told from its bytes.
func (a *ask) guessed(r *record) bool {
	used, _ := r.used()
	return !a.stream && r.messageID() == "" && used.input > 0
}

// worth is the price of what a request used, made by hand.
func (v *verdict) worth(r *record) *big.Int {
	used, _ := r.used()
	if used == (usage{}) {
		return new(big.Int)
	}
	return byHand(v.s.t, r.base.GetModel(), used)
}

// budgets checks that nobody is over a budget, by the price of what each request used,
// made by hand.
func (v *verdict) budgets(records map[string][]*record) {
	s := v.s
	byID := map[string]account{}
	for _, team := range s.plan.teams {
		byID["team "+team.name] = team
	}
	for i, id := range s.keyIDs {
		byID["key "+id] = s.plan.keys[i]
	}
	spent, how := map[string]*big.Int{}, map[string][]string{}
	for _, r := range slices.Concat(slices.Collect(maps.Values(records))...) {
		for _, id := range []string{"key " + r.base.GetKeyId(), "team " + r.base.GetTeamId()} {
			if spent[id] == nil {
				spent[id] = new(big.Int)
			}
			spent[id].Add(spent[id], v.worth(r))
			how[id] = append(how[id], r.base.GetEndedAt().AsTime().Format("05.000 ")+r.String())
		}
	}
	for id, sum := range spent {
		a, ok := byID[id]
		if !ok {
			v.fault("the ledger has %s, which does not exist", id)
		}
		if a.budget > 0 && sum.Cmp(big.NewInt(a.budget)) > 0 {
			v.fault("over budget: %s (%s) has spent %s of %d nano-dollars: %s", id, a.name, sum, a.budget, strings.Join(slices.Sorted(slices.Values(how[id])), "; "))
		}
	}
}
