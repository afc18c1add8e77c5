package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Thread finds the conversation whose last answer was messageID. NotFound also
// when it is somebody else's.
func (s *Store) Thread(ctx context.Context, owner, messageID string) (ledger.Thread, error) {
	rows, _ := s.db.Query(ctx, `
		select owner, message_id, model_id, tokens from spend.threads
		where message_id = @message_id and owner = @owner`,
		pgx.StrictNamedArgs{"message_id": clean(messageID), "owner": owner})
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[ledger.Thread])
	switch {
	case isNoRows(err):
		return t, fault.Errorf(fault.NotFound, "no conversation of %s", messageID)
	case err != nil:
		return t, explain("find a conversation", err)
	}
	return t, nil
}

// ForgetThreads drops conversations older than their upstream keeps them.
func (s *Store) ForgetThreads(ctx context.Context, before time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.db.Exec(ctx, `delete from spend.threads where created_at < @before`, pgx.StrictNamedArgs{"before": before})
	if err != nil {
		return explain("forget conversations", err)
	}
	return nil
}

// queueThreads remembers the conversations of the answers that were settled.
func queueThreads(p *pipeline, b *ledger.Batch) {
	c := p.columns(4)
	for _, s := range b.Settlements {
		if t := s.Thread; t != nil {
			c.texts(clean(t.MessageID), t.Owner, t.ModelID)
			c.bigints(t.Tokens)
		}
	}
	if c.len() == 0 {
		return
	}
	p.queue(`
		insert into spend.threads (message_id, owner, model_id, tokens)
		select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
		on conflict (message_id) do nothing`, nil, c.args()...)
}
