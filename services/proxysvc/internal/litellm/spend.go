package litellm

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// ListSpendLogs implements GET /spend/logs. Without both dates it lists rows,
// whatever summarize says, as LiteLLM does.
func (s *Server) ListSpendLogs(ctx context.Context, r *litellmv1.ListSpendLogsRequest) (*litellmv1.ListSpendLogsResponse, error) {
	from, to, err := bothDates(r.GetStartDate(), r.GetEndDate())
	if err != nil {
		return nil, err
	}
	keyID, err := s.keyID(ctx, r.GetApiKey())
	if err != nil {
		return nil, err
	}
	q := ledger.RowQuery{KeyID: keyID, UserID: r.GetUserId(), RequestID: r.GetRequestId(), From: from, To: to, Limit: mostRows + 1}
	summarize := r.GetSummarize() == nil || r.GetSummarize().GetValue()
	if !from.IsZero() && summarize {
		return s.summarize(ctx, q)
	}
	rows, err := s.ledger.FindRows(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(rows) > mostRows {
		return nil, fault.Errorf(fault.Invalid, "there are more than %d rows for one answer; name fewer days, or read them in pages with /spend/logs/v2", mostRows)
	}
	out := &litellmv1.ListSpendLogsResponse{}
	for i := range rows {
		out.Rows = append(out.Rows, spendRow(&rows[i], true))
	}
	return out, nil
}

// keyID is the id of a key that is named by its secret or token; one that does not
// exist has an id that no row has.
func (s *Server) keyID(ctx context.Context, key string) (string, error) {
	if key == "" {
		return "", nil
	}
	k, err := s.anyKey(ctx, key)
	if err == nil && k == nil {
		return "none", nil
	}
	return k.GetKeyId(), err
}

// bothDates reads two days; zero times when neither is given.
func bothDates(start, end string) (from, to time.Time, err error) {
	if start == "" && end == "" {
		return from, to, nil
	}
	if from, err = date("start_date", start); err == nil {
		to, err = date("end_date", end)
	}
	return from, to, err
}

// neededDays reads two days that must be given, both included.
func neededDays(start, end string) (ledger.Days, error) {
	if start == "" || end == "" {
		return ledger.Days{}, fault.Errorf(fault.Invalid, "Please provide start_date and end_date")
	}
	from, to, err := bothDates(start, end)
	return ledger.Days{From: from, To: to}, err
}

func date(name, text string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, fault.Errorf(fault.Invalid, "%s must be of the form YYYY-MM-DD. Received: %.64q", name, text)
	}
	return t, nil
}

// longestSpan bounds an answer that has an entry for each day.
const longestSpan = 3700 * 24 * time.Hour

// summarize sums spend by day, from the first day to the last. The last one is in
// the answer, but nothing of it: LiteLLM compares with its first instant.
func (s *Server) summarize(ctx context.Context, q ledger.RowQuery) (*litellmv1.ListSpendLogsResponse, error) {
	if q.To.Sub(q.From) > longestSpan {
		return nil, fault.Errorf(fault.Invalid, "there are too many days between start_date and end_date")
	}
	days := ledger.Days{From: q.From, To: q.To.AddDate(0, 0, -1)}
	sums := daySums{}
	var err error
	switch {
	case !q.From.Before(q.To):
	case q.RequestID != "":
		err = s.sumRows(ctx, q, sums)
	case q.KeyID != "" || q.UserID != "":
		err = s.sumSlices(ctx, q, days, sums)
	default:
		err = s.sumAll(ctx, days, sums)
	}
	if err != nil {
		return nil, err
	}
	out := &litellmv1.ListSpendLogsResponse{}
	for day := q.From; !day.After(q.To); day = day.AddDate(0, 0, 1) {
		out.Rows = append(out.Rows, sums.at(day).row(day))
	}
	return out, nil
}

// daySums are sums by day.
type daySums map[string]*daySum

type daySum struct {
	spend               money.NanoUSD
	keys, users, models map[string]money.NanoUSD
}

func (d daySums) at(day time.Time) *daySum {
	name := day.UTC().Format(time.DateOnly)
	if d[name] == nil {
		d[name] = &daySum{keys: map[string]money.NanoUSD{}, users: map[string]money.NanoUSD{}, models: map[string]money.NanoUSD{}}
	}
	return d[name]
}

func (d *daySum) add(token, user, model string, cost money.NanoUSD) {
	d.spend += cost
	d.keys[token] += cost
	d.users[user] += cost
	d.models[model] += cost
}

// row is a day as LiteLLM shows it: the tokens stand beside its own fields.
func (d *daySum) row(day time.Time) *structpb.Struct {
	row := amounts(d.keys)
	row.Fields["startTime"] = structpb.NewStringValue(day.Format(time.DateOnly))
	row.Fields["spend"] = structpb.NewNumberValue(usd(d.spend))
	row.Fields["users"] = structpb.NewStructValue(amounts(d.users))
	row.Fields["models"] = structpb.NewStructValue(amounts(d.models))
	return row
}

func amounts(m map[string]money.NanoUSD) *structpb.Struct {
	s := fields(map[string]*structpb.Value{})
	for name, n := range m {
		s.Fields[name] = structpb.NewNumberValue(usd(n))
	}
	return s
}

func (s *Server) sumRows(ctx context.Context, q ledger.RowQuery, sums daySums) error {
	rows, err := s.ledger.FindRows(ctx, q)
	for _, r := range rows {
		sums.at(r.EndedAt).add(r.Token, r.UserID, r.Model, r.Cost)
	}
	return err
}

// sumSlices sums what a key or a session spent.
func (s *Server) sumSlices(ctx context.Context, q ledger.RowQuery, days ledger.Days, sums daySums) error {
	of := ledger.AccountID{Kind: ledger.KindUser, ID: q.UserID}
	if q.KeyID != "" {
		of = ledger.AccountID{Kind: ledger.KindKey, ID: q.KeyID}
	}
	slices, err := s.ledger.Slices(ctx, of, days)
	for _, l := range slices {
		if q.UserID == "" || l.UserID == q.UserID {
			sums.at(l.Day).add(l.Token, l.UserID, l.ID, l.Cost)
		}
	}
	return err
}

// sumAll sums what everybody spent, from the totals.
func (s *Server) sumAll(ctx context.Context, days ledger.Days, sums daySums) error {
	models, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindModel, Days: days})
	if err != nil {
		return err
	}
	for _, u := range models {
		d := sums.at(u.Day)
		d.spend += u.Cost
		d.models[u.ID] += u.Cost
	}
	users, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindUser, Days: days})
	if err != nil {
		return err
	}
	for _, u := range users {
		sums.at(u.Day).users[u.ID] += u.Cost
	}
	keys, err := s.ledger.Uses(ctx, ledger.UseQuery{Kind: ledger.KindKey, Days: days})
	if err != nil {
		return err
	}
	tokens, err := s.tokens(ctx, keys)
	for _, u := range keys {
		sums.at(u.Day).keys[tokens(u.ID)] += u.Cost
	}
	return err
}

// tokens finds the tokens of the keys that were used; of one whose rows have left
// the ledger's table it is the key's id.
func (s *Server) tokens(ctx context.Context, uses []ledger.Use) (func(keyID string) string, error) {
	ids := make([]string, 0, len(uses))
	seen := map[string]bool{}
	for _, u := range uses {
		if !seen[u.ID] {
			seen[u.ID] = true
			ids = append(ids, u.ID)
		}
	}
	found, err := s.ledger.Tokens(ctx, ids)
	return func(keyID string) string {
		if token, ok := found[keyID]; ok {
			return token
		}
		return keyID
	}, err
}

// rowSorts are LiteLLM's names of the orders that the ledger has.
var rowSorts = map[string]ledger.RowSort{
	"": ledger.ByEnd, "startTime": ledger.ByEnd, "endTime": ledger.ByEnd, "spend": ledger.ByCost, "total_tokens": ledger.ByTokens,
}

// ListSpendLogPage implements GET /spend/logs/v2.
func (s *Server) ListSpendLogPage(ctx context.Context, r *litellmv1.ListSpendLogPageRequest) (*litellmv1.ListSpendLogPageResponse, error) {
	p, err := pageOf(r.GetPage(), r.GetPageSize(), 50, 100)
	if err != nil {
		return nil, err
	}
	q, err := s.rowQuery(ctx, r)
	if err != nil {
		return nil, err
	}
	q.Limit, q.Offset = p.size, p.skip()
	total, err := s.ledger.CountRows(ctx, q)
	if err != nil {
		return nil, err
	}
	rows, err := s.ledger.FindRows(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &litellmv1.ListSpendLogPageResponse{Total: int32(total), Page: int32(p.number), PageSize: int32(p.size), TotalPages: p.pages(total)}
	for i := range rows {
		out.Data = append(out.Data, spendRow(&rows[i], false))
	}
	return out, nil
}

func (s *Server) rowQuery(ctx context.Context, r *litellmv1.ListSpendLogPageRequest) (ledger.RowQuery, error) {
	q := ledger.RowQuery{
		TeamID: r.GetTeamId(), UserID: r.GetUserId(), RequestID: r.GetRequestId(),
		Model: r.GetModel(), ModelID: r.GetModelId(), EndUser: r.GetEndUser(),
	}
	var err error
	if q.From, q.To, err = span(r.GetStartDate(), r.GetEndDate()); err != nil {
		return q, err
	}
	if q.KeyID, err = s.keyOf(ctx, r); err != nil {
		return q, err
	}
	var ok bool
	if q.Sort, ok = rowSorts[r.GetSortBy()]; !ok {
		return q, fault.Errorf(fault.Invalid, "sort_by must be startTime, endTime, spend or total_tokens. Received: %.64q", r.GetSortBy())
	}
	if q.Ascending, err = ascends(r.GetSortOrder()); err != nil {
		return q, err
	}
	switch r.GetStatusFilter() {
	case "":
	case "success", "failure":
		failed := r.GetStatusFilter() == "failure"
		q.Failed = &failed
	default:
		return q, fault.Errorf(fault.Invalid, "status_filter must be success or failure. Received: %.64q", r.GetStatusFilter())
	}
	if r.GetMinSpend() != nil {
		if q.MinCost, err = bound("min_spend", r.GetMinSpend().GetValue()); err != nil {
			return q, err
		}
	}
	if r.GetMaxSpend() != nil {
		q.MaxCost, err = bound("max_spend", r.GetMaxSpend().GetValue())
	}
	return q, err
}

// keyOf is the id of the key that is named by api_key or key_alias.
func (s *Server) keyOf(ctx context.Context, r *litellmv1.ListSpendLogPageRequest) (string, error) {
	id, err := s.keyID(ctx, r.GetApiKey())
	if err != nil || r.GetKeyAlias() == "" {
		return id, err
	}
	named, err := s.keyID(ctx, r.GetKeyAlias())
	if id != "" && id != named {
		return "none", err
	}
	return named, err
}

func bound(name string, dollars float64) (*money.NanoUSD, error) {
	nano, err := nanoFrom(name, dollars)
	n := money.NanoUSD(nano)
	return &n, err
}

// span reads the two instants of /spend/logs/v2.
func span(start, end string) (from, to time.Time, err error) {
	if start == "" || end == "" {
		return from, to, fault.Errorf(fault.Invalid, "Start date and end date are required")
	}
	for _, f := range []struct {
		name, text string
		to         *time.Time
	}{{"start_date", start, &from}, {"end_date", end, &to}} {
		if *f.to, err = time.Parse(time.DateTime, strings.TrimSpace(f.text)); err != nil {
			return from, to, fault.Errorf(fault.Invalid, "%s must be of the form YYYY-MM-DD HH:MM:SS. Received: %.64q", f.name, f.text)
		}
	}
	return from, to, nil
}
