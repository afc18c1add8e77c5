package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// storm lets clients and actors loose on the suite and returns what the clients
// saw, when the last of both has come to its end. Then everything is whole
// again.
func (s *stand) storm() []attempt {
	ctx := s.t.Context()
	over := make(chan struct{})
	var actors, users, watch sync.WaitGroup
	for whom, acts := range s.plan.actors {
		actors.Go(func() {
			for _, a := range acts {
				if pause(ctx, a.wait) {
					s.perform(ctx, whom, a)
				}
			}
		})
	}
	seats := make([]*client, clients)
	for n := range seats {
		seats[n] = &client{number: n, secrets: s.secrets, rand: s.plan.rand(fmt.Sprintf("replicas of client %d", n))}
		for r := range replicas {
			seats[n].replicas = append(seats[n].replicas, s.services[fmt.Sprintf("proxysvc-%d", r)])
		}
		users.Go(func() {
			seats[n].run(ctx, over, s.plan.clients[n])
			seats[n].http.CloseIdleConnections()
		})
	}
	watch.Go(func() { s.inspect(ctx, over) })
	actors.Wait()
	close(over)
	s.heal(ctx)
	users.Wait()
	watch.Wait()
	var all []attempt
	for _, c := range seats {
		all = append(all, c.done...)
	}
	return all
}

// perform lets one thing happen and ends it.
func (s *stand) perform(ctx context.Context, whom string, a act) {
	if whom == "postgres" {
		if err := s.postgres.stop(ctx, a.what); err != nil {
			s.t.Errorf("stop postgres: %v", err)
		}
		gone := time.Now()
		pause(ctx, a.last)
		s.outages.add(gone, time.Now())
		if err := s.postgres.start(ctx); err != nil {
			s.t.Errorf("start postgres: %v", err)
		}
		return
	}
	if l := s.links[whom]; l != nil {
		disturb(ctx, l, a)
		return
	}
	svc := s.services[whom]
	switch a.what {
	case kill:
		svc.kill()
		pause(ctx, a.last)
		svc.want(true)
	case drain:
		patient, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		svc.drain(patient)
		svc.want(true)
	case freeze:
		svc.signal(syscall.SIGSTOP, false)
		pause(ctx, a.last)
		svc.signal(syscall.SIGCONT, false)
	}
}

func disturb(ctx context.Context, l *link, a act) {
	switch a.what {
	case cut, reset:
		l.cut(a.what == reset)
		return
	case lag:
		l.set(weather{delay: a.last / 20})
	case hole:
		l.set(weather{hole: true})
	case refuse:
		l.set(weather{refuse: true})
		l.cut(false)
	case lose:
		l.set(weather{lose: true})
	}
	pause(ctx, a.last)
	l.set(weather{})
}

// heal makes everything whole. An outbox that died or was cut off keeps its
// charges leased for a minute, and what failed is due later: that minute is
// taken for passed, when nobody is left who could hold a lease.
func (s *stand) heal(ctx context.Context) {
	for _, l := range s.links {
		l.set(weather{})
	}
	s.services["outboxsvc"].kill()
	s.poll(ctx, "the leases of the dead expire", func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.through(s.postgres.addr()))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, `update billing.charges set lease_until = now(), due_at = now() where lease_until > now() or due_at > now()`)
		return err
	})
	for _, svc := range s.services {
		svc.want(true)
	}
	s.poll(ctx, "everything is ready again", s.allReady)
}

// inspect looks at every limited account while the storm lasts: what is spent
// and held, in one snapshot, is never more than its budget, nor are more
// requests in flight than it may have.
func (s *stand) inspect(ctx context.Context, over <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		default:
		}
		if !pause(ctx, 150*time.Millisecond) {
			return
		}
		for i, key := range s.plan.keys {
			s.inspectAccount(ctx, n, "key", s.keyIDs[i], key)
		}
		for _, team := range s.plan.teams {
			s.inspectAccount(ctx, n, "team", team.name, team)
		}
	}
}

func (s *stand) inspectAccount(ctx context.Context, n int, kind, id string, a account) {
	if !a.limited() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	got, err := s.spend[n%replicas].GetAccount(ctx, &proxyv1.GetAccountRequest{Kind: kind, Id: id})
	if err != nil {
		return // that replica is dead, frozen or cut off
	}
	if most := got.GetSpentNanoUsd() + got.GetHeldNanoUsd(); a.budget > 0 && most > a.budget {
		s.t.Errorf("seed %d: in the storm %s %s has %d spent and %d held, its budget is %d", s.plan.seed, kind, a.name, got.GetSpentNanoUsd(), got.GetHeldNanoUsd(), a.budget)
	}
	if a.parallel > 0 && got.GetOpenRequests() > a.parallel {
		s.t.Errorf("seed %d: in the storm %s %s has %d requests in flight, and %d are allowed", s.plan.seed, kind, a.name, got.GetOpenRequests(), a.parallel)
	}
}

// calm waits until nothing is on its way any more: no request is open, all of
// the ledger is billed, and all charges are posted.
func (s *stand) calm() (*proxyv1.AuditSpendResponse, *billingv1.AuditBillingResponse) {
	var ledger *proxyv1.AuditSpendResponse
	var books *billingv1.AuditBillingResponse
	s.poll(s.t.Context(), "no request is open", func(ctx context.Context) (err error) {
		if !s.upstream.quiet() {
			return errors.New("the simulator still serves")
		}
		if ledger, err = s.spend[0].AuditSpend(ctx, &proxyv1.AuditSpendRequest{}); err != nil {
			return err
		}
		if n, held := ledger.GetOpenRequests(), ledger.GetHeldNanoUsd(); n != 0 || held != 0 {
			return fmt.Errorf("%d requests are open, %d nano-dollars held", n, held)
		}
		return nil
	})
	rows, looks := int64(-1), 0
	s.poll(s.t.Context(), "everything is billed and posted", func(ctx context.Context) (err error) {
		if _, err := s.billing.SyncNow(ctx, &billingv1.SyncNowRequest{}); err != nil {
			return err
		}
		if _, err := s.outbox.DeliverNow(ctx, &outboxv1.DeliverNowRequest{}); err != nil {
			return err
		}
		if ledger, err = s.spend[0].AuditSpend(ctx, &proxyv1.AuditSpendRequest{}); err != nil {
			return err
		}
		if books, err = s.billing.AuditBilling(ctx, &billingv1.AuditBillingRequest{}); err != nil {
			return err
		}
		if err := onTheWay(ledger, books); err != nil {
			looks = 0
			return err
		}
		if ledger.GetRows() != rows {
			rows, looks = ledger.GetRows(), 0
		}
		if looks++; looks < calmLooks {
			return fmt.Errorf("%d rows at the look %d", rows, looks)
		}
		return nil
	})
	return ledger, books
}

// calmLooks is how often the ledger must look the same: a replica that thaws posts
// its corrections with a heartbeat.
const calmLooks = 8

// onTheWay says what is not billed or posted yet.
func onTheWay(ledger *proxyv1.AuditSpendResponse, books *billingv1.AuditBillingResponse) error {
	cost := new(big.Int)
	var waiting []string
	for _, team := range books.GetTeams() {
		cost.Add(cost, big.NewInt(team.GetCostNanoUsd()))
		if n := team.GetChargedNanoUsd() - team.GetPostedNanoUsd(); n != 0 {
			waiting = append(waiting, fmt.Sprintf("%d nano-dollars of %s are charged and not posted", n, team.GetTeamId()))
		}
	}
	if cost.Cmp(big.NewInt(ledger.GetCostNanoUsd())) != 0 {
		waiting = append(waiting, fmt.Sprintf("%s of %d nano-dollars have events", cost, ledger.GetCostNanoUsd()))
	}
	if len(waiting) > 0 {
		return errors.New(strings.Join(waiting, "; "))
	}
	return nil
}

// outages are the times at which there was no Postgres for certain.
type outages struct {
	mu   sync.Mutex
	list [][2]time.Time
}

func (o *outages) add(from, to time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, [2]time.Time{from, to})
}

func (o *outages) during(at time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.list, func(w [2]time.Time) bool { return at.After(w[0]) && at.Before(w[1]) })
}
