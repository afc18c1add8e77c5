package config

import "strings"

// settings sorts what LiteLLM can be told and is not read here: accepted is what
// is had anyway or cannot be missed, idle what somebody could rely on in vain,
// with the reason where there is one.
type settings struct {
	accepted map[string]string
	idle     map[string]string
}

// table makes a table of settings of groups: a reason each, and the names that it
// goes for.
func table(groups map[string]string) map[string]string {
	out := map[string]string{}
	for why, list := range groups {
		for name := range strings.FieldsSeq(list) {
			out[name] = why
		}
	}
	return out
}

// Reasons that several settings share.
const (
	whyUnchanged = "requests are forwarded as they came"
	whyFactors   = "service tiers cost what the price list says, times these prices"
	whyTokens    = "requests are charged by their tokens"
	whyFallbacks = "fallbacks are the same whatever the error was"
)

var fileSettings = settings{
	idle: table(map[string]string{
		"": `guardrails mcp_servers vector_store_registry finetune_settings files_settings callback_settings
			assistant_settings search_tools prompts policies default_vertex_config`,
		"other files are not read; put all in this one":             "include",
		"set variables where the program is started":                "environment_variables",
		"write api_key and api_base into the entries of model_list": "credential_list",
	}),
}

var entrySettings = settings{
	idle: table(map[string]string{
		"it belongs under litellm_params": "rpm tpm weight order api_key api_base timeout stream_timeout max_retries",
		"it belongs under model_info":     "id base_model",
	}),
}

var paramsSettings = settings{
	accepted: table(map[string]string{"": "drop_params use_in_pass_through"}),
	idle: table(map[string]string{
		"": `extra_headers default_headers headers tags tag_regex organization api_version region_name
			max_parallel_requests max_budget budget_duration mock_response litellm_credential_name
			configurable_clientside_auth_params allowed_fails num_retries fallbacks guardrails
			azure_ad_token tenant_id client_id client_secret aws_access_key_id aws_secret_access_key
			aws_region_name aws_role_name aws_session_name vertex_project vertex_location vertex_credentials`,
		"the provider stands before the model, as in anthropic/MODEL": "custom_llm_provider",
		"api_base is read": "base_url",
		whyUnchanged: `additional_drop_params temperature max_tokens max_completion_tokens top_p top_k seed stop user
			stream thinking reasoning_effort service_tier extra_body cache_control_injection_points
			merge_reasoning_content_in_choices response_format tools tool_choice modify_params`,
		whyFactors: tierPrices,
		whyTokens:  otherPrices,
	}),
}

const (
	tierPrices = `input_cost_per_token_priority input_cost_per_token_flex input_cost_per_token_batches
		output_cost_per_token_priority output_cost_per_token_flex output_cost_per_token_batches
		cache_read_input_token_cost_priority cache_read_input_token_cost_flex
		cache_creation_input_token_cost_priority cache_creation_input_token_cost_flex`
	otherPrices = `input_cost_per_second output_cost_per_second input_cost_per_character output_cost_per_character
		input_cost_per_image output_cost_per_image input_cost_per_audio_token output_cost_per_audio_token
		output_cost_per_reasoning_token search_context_cost_per_query input_cost_per_request`
)

// infoSettings goes for model_info. What is there mostly describes a model to
// clients of LiteLLM.
var infoSettings = settings{
	accepted: table(map[string]string{"": `mode max_input_tokens litellm_provider description
		disable_background_health_check health_check_model health_check_timeout
		supports_function_calling supports_parallel_function_calling supports_vision supports_pdf_input
		supports_prompt_caching supports_reasoning supports_response_schema supports_system_messages
		supports_tool_choice supports_web_search supports_computer_use supports_assistant_prefill
		db_model created_at updated_at created_by updated_by`}),
	idle: table(map[string]string{
		"name the models in key and team lists": "access_groups",
		"":                                      "team_id team_public_model_name supported_environments",
		whyFactors:                              tierPrices,
		whyTokens:                               otherPrices,
	}),
}

var routerSettings = settings{
	accepted: table(map[string]string{"": "set_verbose debug_level"}),
	idle: table(map[string]string{
		"": `retry_policy allowed_fails_policy model_group_retry_policy max_fallbacks enable_pre_call_checks
			routing_strategy_args cache_responses cache_kwargs caching_groups client_ttl default_priority
			polling_interval disable_cooldowns enable_tag_filtering tag_filtering_match_any
			default_litellm_params default_max_parallel_requests provider_budget_config alerting_config`,
		"sessions stay on their deployment anyway":         "optional_pre_call_checks",
		"rpm, tpm and cool-downs are kept by each replica": "redis_host redis_port redis_password redis_url redis_db redis_ssl",
		whyFallbacks: "context_window_fallbacks content_policy_fallbacks",
	}),
}

var litellmSettings = settings{
	accepted: table(map[string]string{"": `drop_params set_verbose json_logs turn_off_message_logging suppress_debug_info
		telemetry disable_add_user_agent_to_request_tags expose_router_debug_in_errors redact_user_api_key_info`}),
	idle: table(map[string]string{
		"": `cache cache_params max_budget budget_duration default_key_generate_params upperbound_key_generate_params
			key_generation_settings default_team_params default_team_settings default_internal_user_params
			max_internal_user_budget internal_user_budget_duration max_end_user_budget tag_budget_config timezone
			callbacks success_callback failure_callback service_callback extra_spend_tag_headers
			enable_mid_stream_fallback_continuation modify_params ssl_verify guardrails custom_provider_map
			model_alias_map priority_reservation forward_traceparent_to_llm_provider public_model_groups`,
		"costs are the price list's, and billingsvc's the markup": "cost_discount_config cost_margin_config",
		"write them into the entries of model_list":               "api_key api_base anthropic_key openai_key",
		whyFallbacks: "context_window_fallbacks content_policy_fallbacks",
	}),
}

var generalSettings = settings{
	accepted: table(map[string]string{"": `proxy_batch_write_at database_connection_pool_limit database_connection_timeout
		background_health_checks health_check_interval enable_drain_endpoint proxy_budget_rescheduler_min_time
		proxy_budget_rescheduler_max_time user_api_key_cache_ttl enable_redis_auth_cache use_redis_transaction_buffer
		always_include_stream_usage disable_error_logs disable_reset_budget`}),
	idle: table(map[string]string{
		"": `store_model_in_db store_prompts_in_spend_logs maximum_spend_logs_retention_period
			maximum_spend_logs_retention_interval maximum_spend_logs_cleanup_cron global_max_parallel_requests
			max_parallel_requests token_rate_limit_type litellm_key_header_name pass_through_endpoints
			completion_model forward_client_headers_to_llm_api include_call_id_in_error_body max_request_size_mb
			max_response_size_mb allowed_ips alerting alerting_threshold alert_types alerting_args
			alert_to_webhook_url custom_auth custom_key_generate enable_jwt_auth litellm_jwtauth allow_user_auth
			enforce_user_param allowed_routes admin_only_routes public_routes key_management_system
			key_management_settings database_type infer_model_from_keys ui_access_mode service_account_settings`,
		"the environment is used instead (LLM_PROXY_MASTER_KEY)": "master_key",
		"the environment is used instead (DATABASE_URL)":         "database_url",
		"budgets always hold, over all replicas":                 "fail_closed_budget_enforcement disable_budget_reservation",
		"every request is on the ledger":                         "disable_spend_logs disable_spend_updates",
		"an outage of the database never opens the till":         "allow_requests_on_db_unavailable",
	}),
}
