-- A batch costs less, whatever is in it.

-- Batches lock logs first, then spend_logs.
lock table spend.logs in access exclusive mode;

-- Postgres reads a check anew for every statement, which is a tenth of what a small batch
-- costs. A row's place comes from advance alone, its status from one list in the writer.
alter table spend.spend_logs drop constraint spend_logs_seq_positive, drop constraint spend_logs_status_known;

-- advance begins a batch: it moves the log on, or fails with LP001 when the log is fenced
-- or not where its writer believes it to be, and with LP003 when accounts were made since
-- the round in which some that the batch leaves out had no shared row. Batches share the
-- advisory lock that ensure_accounts takes alone.
create or replace function spend.advance(p_log_id bigint, p_batch bigint, p_rows bigint, p_made bigint) returns void
language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('spend.accounts', 0));
  update spend.logs
     set batch = p_batch, last_seq = last_seq + p_rows, heartbeat_at = clock_timestamp()
   where log_id = p_log_id and batch = p_batch - 1 and fenced_at is null and closed_at is null;
  if not found then
    raise exception 'log % is fenced, or not at batch %', p_log_id, p_batch - 1 using errcode = 'LP001';
  end if;
  if p_made <> coalesce((select max(made) from spend.accounts), 0) then
    raise exception 'accounts were made since round %', p_made using errcode = 'LP003';
  end if;
end $$;
