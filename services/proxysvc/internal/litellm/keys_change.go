package litellm

import (
	"context"
	"regexp"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// changing is a request that changes what it gives about a key.
type changing interface {
	limited
	restricted
	GetKeyAlias() *wrapperspb.StringValue
	GetUserId() *wrapperspb.StringValue
	GetTeamId() *wrapperspb.StringValue
	GetModels() *structpb.ListValue
	GetTags() *structpb.ListValue
	GetAllowedRoutes() *structpb.ListValue
	GetAliases() *structpb.Struct
	GetMetadata() *structpb.Struct
	GetDuration() *structpb.Value
	GetKeyType() *wrapperspb.StringValue
	GetBlocked() *wrapperspb.BoolValue
}

// change is what becomes of a key or a team: new values and which of them count.
type change struct {
	key   *keysv1.Key
	paths []string
}

func (c *change) mask() *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: c.paths} }

// text takes over a text that is given.
func (c *change) text(path string, v *wrapperspb.StringValue, to *string) {
	if v != nil {
		*to = v.GetValue()
		c.paths = append(c.paths, path)
	}
}

// list takes over a list that is given.
func (c *change) list(path string, v *structpb.ListValue, to *[]string) error {
	if v == nil {
		return nil
	}
	texts, err := textsOf(path, v)
	*to = texts
	c.paths = append(c.paths, path)
	return err
}

func textsOf(name string, v *structpb.ListValue) ([]string, error) {
	var out []string
	for _, e := range v.GetValues() {
		t, ok := e.GetKind().(*structpb.Value_StringValue)
		if !ok {
			return nil, fault.Errorf(fault.Invalid, "%s must be a list of texts", name)
		}
		out = append(out, t.StringValue)
	}
	return out, nil
}

// named takes over names for models that are given.
func (c *change) named(v *structpb.Struct) error {
	if v == nil {
		return nil
	}
	c.key.Aliases = map[string]string{}
	for name, model := range v.GetFields() {
		t, ok := model.GetKind().(*structpb.Value_StringValue)
		if !ok {
			return fault.Errorf(fault.Invalid, "aliases must be an object of texts")
		}
		c.key.Aliases[name] = t.StringValue
	}
	c.paths = append(c.paths, "aliases")
	return nil
}

// life takes over a duration that is given; an explicit null ends the expiry, as
// LiteLLM's newer releases have it.
func (c *change) life(v *structpb.Value) error {
	switch d := v.GetKind().(type) {
	case nil:
		return nil
	case *structpb.Value_NullValue:
		c.key.Duration = "-1"
	case *structpb.Value_StringValue:
		c.key.Duration = d.StringValue
	default:
		return fault.Errorf(fault.Invalid, "duration must be a text such as 24h")
	}
	c.paths = append(c.paths, "duration")
	return nil
}

// changeFrom reads what a request changes about a key.
func changeFrom(r changing) (*change, error) {
	if r.GetSpend() != nil {
		return nil, errSpend
	}
	if err := checkKey(r); err != nil {
		return nil, err
	}
	limits, paths, err := limitsFrom(r)
	if err != nil {
		return nil, err
	}
	c := &change{key: &keysv1.Key{Limits: limits, Metadata: r.GetMetadata(), Blocked: r.GetBlocked().GetValue()}, paths: paths}
	c.text("key_alias", r.GetKeyAlias(), &c.key.KeyAlias)
	c.text("user_id", r.GetUserId(), &c.key.UserId)
	c.text("team_id", r.GetTeamId(), &c.key.TeamId)
	if r.GetMetadata() != nil {
		c.paths = append(c.paths, "metadata")
	}
	if r.GetBlocked() != nil {
		c.paths = append(c.paths, "blocked")
	}
	for _, err := range []error{
		c.list("models", r.GetModels(), &c.key.Models), c.list("tags", r.GetTags(), &c.key.Tags),
		c.routes(r), c.named(r.GetAliases()), c.life(r.GetDuration()),
	} {
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *change) routes(r changing) error {
	var given []string
	if r.GetKeyType() == nil {
		return c.list("allowed_routes", r.GetAllowedRoutes(), &c.key.AllowedRoutes)
	}
	given, err := textsOf("allowed_routes", r.GetAllowedRoutes())
	if err != nil {
		return err
	}
	c.paths = append(c.paths, "allowed_routes")
	c.key.AllowedRoutes, err = routesFrom(given, r.GetKeyType().GetValue())
	return err
}

// UpdateKey implements POST /key/update.
func (s *Server) UpdateKey(ctx context.Context, r *litellmv1.UpdateKeyRequest) (*litellmv1.UpdateKeyResponse, error) {
	row, err := s.updateKey(ctx, r.GetKey(), r)
	if err != nil {
		return nil, err
	}
	row.Fields["key"] = structpb.NewStringValue(r.GetKey())
	return &litellmv1.UpdateKeyResponse{Row: row}, nil
}

func (s *Server) updateKey(ctx context.Context, key string, r changing) (*structpb.Struct, error) {
	k, err := s.findKey(ctx, key)
	if err != nil {
		return nil, err
	}
	if k, err = s.change(ctx, k, r); err != nil {
		return nil, err
	}
	return s.row(ctx, k)
}

// change changes a key; what gives nothing changes nothing.
func (s *Server) change(ctx context.Context, k *keysv1.Key, r changing) (*keysv1.Key, error) {
	c, err := changeFrom(r)
	if err != nil || len(c.paths) == 0 {
		return k, err
	}
	if err := s.ensureTeam(ctx, c.key.GetTeamId()); err != nil {
		return nil, err
	}
	c.key.KeyId = k.GetKeyId()
	resp, err := s.keys.UpdateKey(ctx, &keysv1.UpdateKeyRequest{Key: c.key, UpdateMask: c.mask()})
	return resp.GetKey(), err
}

// BulkUpdateKeys implements POST /key/bulk_update.
func (s *Server) BulkUpdateKeys(ctx context.Context, r *litellmv1.BulkUpdateKeysRequest) (*litellmv1.BulkUpdateKeysResponse, error) {
	n := len(r.GetKeys())
	if n == 0 || n > mostKeys {
		return nil, fault.Errorf(fault.Invalid, "keys must be given, at most %d", mostKeys)
	}
	out := &litellmv1.BulkUpdateKeysResponse{TotalRequested: int32(n)} // at most mostKeys
	for _, u := range r.GetKeys() {
		row, err := s.updateKey(ctx, u.GetKey(), u)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			out.FailedUpdates = append(out.FailedUpdates, &litellmv1.FailedUpdate{Key: u.GetKey(), FailedReason: serve.Status(err).Message()})
			continue
		}
		out.SuccessfulUpdates = append(out.SuccessfulUpdates, &litellmv1.SuccessfulUpdate{Key: u.GetKey(), KeyInfo: row})
	}
	return out, nil
}

// RegenerateKey implements POST /key/{key}/regenerate.
func (s *Server) RegenerateKey(ctx context.Context, r *litellmv1.RegenerateKeyRequest) (*litellmv1.RegenerateKeyResponse, error) {
	if r.GetNewKey().GetValue() != "" || r.GetNewMasterKey().GetValue() != "" {
		return nil, fault.Errorf(fault.Invalid, "new_key and new_master_key cannot be chosen here: leave them out and use the key of the answer")
	}
	before, err := s.anyKey(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	if before == nil || before.GetRevokedAt() != nil {
		return nil, fault.Errorf(fault.NotFound, "Key %s not found.", tokenShown(r.GetKey()))
	}
	c, err := changeFrom(r)
	if err != nil {
		return nil, err
	}
	if err := s.ensureTeam(ctx, c.key.GetTeamId()); err != nil {
		return nil, err
	}
	resp, err := s.keys.RotateKey(ctx, &keysv1.RotateKeyRequest{
		KeyId: before.GetKeyId(), GracePeriod: r.GetGracePeriod().GetValue(), IdempotencyKey: idempotencyKey(ctx),
		Key: c.key, UpdateMask: c.mask(),
	})
	if err != nil {
		return nil, err
	}
	spent, err := s.keyBalances(ctx, resp.GetKey())
	if err != nil {
		return nil, err
	}
	return &litellmv1.RegenerateKeyResponse{Key: generated(resp.GetKey(), resp.GetSecret(), spent[0])}, nil
}

// tokenShown is what an error may say of a key: never its secret.
func tokenShown(key string) string {
	if token := tokenOf(key); token != key {
		return virtualkey.Prefix + "... (token " + token + ")"
	}
	if !public.MatchString(key) {
		return "of this name" // it may be another secret
	}
	return key
}

// public is what an id or a token of a key looks like.
var public = regexp.MustCompile(`^(key_[0-9a-z]{26}|[0-9a-f]{64})$`)

// ResetKeySpend implements POST /key/{key}/reset_spend.
func (s *Server) ResetKeySpend(context.Context, *litellmv1.ResetKeySpendRequest) (*litellmv1.ResetKeySpendResponse, error) {
	return nil, errSpend
}
