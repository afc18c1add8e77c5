package proxy

import (
	"context"
	"slices"
	"strings"
)

// CountTokens asks the upstream for the size of a request. It is never charged,
// needs no admission and is answered at a budget of zero.
func (s *Service) CountTokens(ctx context.Context, c Call, sink Sink) error {
	key, err := s.authenticate(ctx, &c)
	if err != nil {
		return err
	}
	o := outbound{s: s, call: c, path: "/v1/messages/count_tokens"}
	if err := o.route(key); err != nil {
		return err
	}
	if err := o.choose(s.now()); err != nil {
		return err
	}
	_, resp, err := o.send(ctx, func(context.Context, *UpstreamResponse) error { return nil })
	defer o.stop()
	if err != nil {
		return errUpstream(err)
	}
	defer resp.Body.Close() // read to its end, or thrown away
	if resp.Status == 401 || resp.Status == 403 {
		return errCredential(resp.Status)
	}
	body, err := readWhole(resp, maxErrorBody, nil)
	if err != nil {
		return errUpstream(err)
	}
	return reply(sink, resp.Status, forClient(resp.Header, c.RequestID, o.dep.ID), body)
}

// Models lists the names that the call's key may use: those of the
// configuration, and what the price list has for its wildcards.
func (s *Service) Models(ctx context.Context, c Call) ([]string, error) {
	key, err := s.authenticate(ctx, &c)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, name := range s.router.table.Load().listed(s.book.Names) {
		if key.mayUse(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Model is one of them, by its name, or by the name of a deployment behind it
// that is also served.
func (s *Service) Model(ctx context.Context, c Call, name string) (string, error) {
	names, err := s.Models(ctx, c)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if n == name || bareName(n) == bareName(name) {
			return n, nil
		}
	}
	return "", errModel(name)
}

// listed are the names of the table: in its order, then aliases, then what
// wildcards stand for.
func (t *table) listed(priced func(provider string) []string) []string {
	names := slices.Clone(t.names)
	for alias := range t.Aliases {
		names = append(names, alias)
	}
	slices.Sort(names[len(t.names):])
	for _, w := range t.wildcards {
		for _, n := range priced(string(w.targets[0].Provider)) {
			prefix := strings.TrimPrefix(w.prefix, string(w.targets[0].Provider)+"/")
			if strings.HasPrefix(n, prefix) && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}
