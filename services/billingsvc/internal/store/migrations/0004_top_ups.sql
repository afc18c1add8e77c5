-- What a top-up was paid with, so that an invoice is not taken for two.
alter table billing.top_ups add column invoice_id text not null default '';
