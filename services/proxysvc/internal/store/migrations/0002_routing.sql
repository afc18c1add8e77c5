-- What routing needs: how often a request was sent again, and which deployment
-- keeps a conversation.

alter table spend.spend_logs
  add column retries integer not null default 0,
  add column reasoning_tokens bigint not null default 0; -- part of output_tokens

-- Conversations that an upstream keeps: only the deployment that gave the last
-- answer can continue them, and only for their owner.
create table spend.threads (
  message_id text primary key,
  owner      text not null,
  model_id   text not null,
  tokens     bigint not null,
  created_at timestamptz not null default clock_timestamp()
);
create index threads_created on spend.threads (created_at);
