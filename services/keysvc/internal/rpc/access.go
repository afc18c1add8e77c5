package rpc

import (
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// Allow says what admin tokens of each scope may call. VerifyKey and WatchKeys
// are for services only.
func Allow() map[serve.Scope][]string {
	return map[serve.Scope][]string{
		serve.Issue: {
			keysv1.KeyService_IssueSessionKey_FullMethodName,
			keysv1.KeyService_CreateKey_FullMethodName,
			keysv1.KeyService_GetKey_FullMethodName,
			keysv1.KeyService_RotateKey_FullMethodName,
			keysv1.KeyService_RevokeKeys_FullMethodName,
			keysv1.TeamService_EnsureTeam_FullMethodName,
			keysv1.TeamService_GetTeam_FullMethodName,
		},
		serve.Read: {
			keysv1.KeyService_GetKey_FullMethodName,
			keysv1.KeyService_ListKeys_FullMethodName,
			keysv1.KeyService_ListAudit_FullMethodName,
			keysv1.TeamService_GetTeam_FullMethodName,
			keysv1.TeamService_ListTeams_FullMethodName,
		},
	}
}
