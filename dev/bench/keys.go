package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// keyring holds the secrets of the keys that requests are sent with.
type keyring struct {
	many    []string // of many teams, without limits
	team    []string // as many of one team
	limited []string // with budgets, of a team with one
	rated   []string // of another such team, and with as many requests a minute as there are
	mass    []string // a million, made when they are needed
}

// teams is over how many teams the keys without limits are spread.
const teams = 1000

// loadKeys makes the keys and has proxysvc verify each, so that all are in its
// memory.
func (s *stand) loadKeys(ctx context.Context, n int) error {
	plain := &keysv1.Limits{}
	budget := int64(1e15)
	limits := &keysv1.Limits{MaxBudgetNanoUsd: &budget, BudgetDuration: "30d"}
	rated := &keysv1.Limits{MaxBudgetNanoUsd: &budget, BudgetDuration: "30d", RpmLimit: &budget}
	if err := s.makeTeams(ctx, limits); err != nil {
		return err
	}
	var err error
	if s.keys.many, err = s.makeKeys(ctx, "many", "", plain, n*7/10); err != nil {
		return err
	}
	if s.keys.team, err = s.makeKeys(ctx, "team", "team-hot", plain, n*2/10); err != nil {
		return err
	}
	if s.keys.limited, err = s.makeKeys(ctx, "limited", "team-limited", limits, n/20); err != nil {
		return err
	}
	if s.keys.rated, err = s.makeKeys(ctx, "rated", "team-rated", rated, n/20); err != nil {
		return err
	}
	if _, err := s.db.Exec(ctx, `vacuum analyze keys.keys`); err != nil {
		return err
	}
	for _, keys := range [][]string{s.keys.many, s.keys.team, s.keys.limited, s.keys.rated} {
		if err := s.verify(ctx, keys); err != nil {
			return err
		}
	}
	return nil
}

// addKeys makes a million keys more, which proxysvc meets when they are used.
func addKeys(ctx context.Context, s *stand) (err error) {
	say("  making 1,000,000 keys")
	s.keys.mass, err = s.makeKeys(ctx, "mass", "", &keysv1.Limits{}, 1_000_000)
	return err
}

// addRows makes a million rows more: copies of the newest one, in a log of their
// own.
func addRows(ctx context.Context, s *stand) error {
	say("  making 1,000,000 rows")
	rows, _ := s.db.Query(ctx, `
		select quote_ident(column_name::text) from information_schema.columns
		where table_schema = 'spend' and table_name = 'spend_logs' order by ordinal_position`) // CollectRows reports its error
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	values := slices.Clone(columns)
	for name, value := range map[string]string{
		"log_id": "other.log_id", "seq": "n", "request_id": "'req_bench_' || lpad(n::text, 9, '0')", "message_id": "'msg_bench_' || n",
		"team_id": "'team-' || n % 1000", "key_id": "'key_bench_' || n % 20000",
	} {
		values[slices.Index(columns, name)] = value
	}
	_, err = s.db.Exec(ctx, fmt.Sprintf(`
		with other as (
		  insert into spend.logs (instance, last_seq, closed_at) values ('bench', 1000000, now()) returning log_id
		)
		insert into spend.spend_logs (%s)
		select %s from (select * from spend.spend_logs order by ended_at desc limit 1) r, other, generate_series(1, 1000000) n`,
		strings.Join(columns, ", "), strings.Join(values, ", ")))
	if err != nil {
		return fmt.Errorf("make rows: %w", err)
	}
	_, err = s.db.Exec(ctx, `vacuum analyze spend.spend_logs`)
	return err
}

// makeTeams makes team-0 … team-999, team-hot, and two that have limits.
func (s *stand) makeTeams(ctx context.Context, limits *keysv1.Limits) error {
	api := keysv1.NewTeamServiceClient(s.services["keysvc"].conn)
	for id, l := range map[string]*keysv1.Limits{"team-hot": {}, "team-limited": limits, "team-rated": limits} {
		if _, err := api.EnsureTeam(ctx, &keysv1.EnsureTeamRequest{TeamId: id, Limits: l}); err != nil {
			return fmt.Errorf("make %s: %w", id, err)
		}
	}
	_, err := s.db.Exec(ctx, `
		insert into keys.teams
		select (jsonb_populate_record(t, jsonb_build_object('team_id', 'team-' || n))).*
		from keys.teams t, generate_series(0, $1 - 1) n
		where t.team_id = 'team-hot'`, teams)
	return err
}

// makeKeys makes keys: one through keysvc, and the others as copies of its row,
// which is a hundred times faster. Without a team they are spread over all.
func (s *stand) makeKeys(ctx context.Context, name, team string, limits *keysv1.Limits, n int) ([]string, error) {
	first := team
	if first == "" {
		first = "team-hot"
	}
	api := keysv1.NewKeyServiceClient(s.services["keysvc"].conn)
	made, err := api.CreateKey(ctx, &keysv1.CreateKeyRequest{TeamId: first, UserId: name, Limits: limits})
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	secrets := make([]string, 0, n)
	const batch = 10_000
	for from := 0; from < n; from += batch {
		tokens := make([]string, min(batch, n-from))
		for i := range tokens {
			key := virtualkey.New().Reveal()
			secrets, tokens[i] = append(secrets, key), virtualkey.Token(key)
		}
		_, err := s.db.Exec(ctx, `
			insert into keys.keys
			select (jsonb_populate_record(k, jsonb_build_object(
			  'key_id', $1 || '_' || ($3 + t.n), 'token', t.token, 'user_id', $1 || '-' || ($3 + t.n),
			  'team_id', case when $4 = '' then 'team-' || (t.n % $6) else $4 end))).*
			from keys.keys k, unnest($2::text[]) with ordinality t (token, n)
			where k.key_id = $5`, "key_"+name, tokens, from, team, made.GetKey().GetKeyId(), teams)
		if err != nil {
			return nil, fmt.Errorf("copy keys: %w", err)
		}
	}
	return secrets, nil
}

// verify has proxysvc take each key once.
func (s *stand) verify(ctx context.Context, keys []string) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	workers, ctx := errgroup.WithContext(ctx)
	for range 16 {
		workers.Go(func() error {
			for n := next.Add(1) - 1; n < int64(len(keys)); n = next.Add(1) - 1 {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.services["proxysvc"].http+"/v1/models", nil)
				if err != nil {
					return err
				}
				req.Header.Set("X-Api-Key", keys[n])
				resp, err := client.Do(req)
				if err != nil {
					return err
				}
				resp.Body.Close() // only the status counts
				if resp.StatusCode != http.StatusOK {
					return fmt.Errorf("a key that was made is not taken: %s", resp.Status)
				}
			}
			return nil
		})
	}
	return workers.Wait()
}
