package openai

import (
	"crypto/sha256"
	"sync"
)

// Sizes of the tokenizer and of the prompt cache.
const (
	tokenBytes  = 4
	blockTokens = 32
	blockBytes  = blockTokens * tokenBytes
)

// textTokens is the whole tokenizer.
func textTokens(n int) int64 { return int64(n+tokenBytes-1) / tokenBytes }

// promptCache remembers the blocks that prompts began with, each with all that
// came before it.
type promptCache struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]bool
}

// use reads and writes the cache for one prompt and returns the tokens of its
// whole blocks: those known as its beginning, and the others. seed keeps callers
// and models apart.
func (c *promptCache) use(seed string, prompt []byte) (cached, written int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[[sha256.Size]byte]bool{}
	}
	chain := sha256.Sum256([]byte(seed))
	for len(prompt) >= blockBytes {
		chain = sha256.Sum256(append(chain[:], prompt[:blockBytes]...))
		prompt = prompt[blockBytes:]
		if c.known[chain] {
			cached += blockTokens
			continue
		}
		c.known[chain] = true
		written += blockTokens
	}
	return cached, written
}

func (c *promptCache) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.known)
}

// startUsage uses the prompt cache and returns what the answer to t will report
// of its prompt.
func (s *Server) startUsage(c *call, t *turn) Usage {
	u := Usage{InputTokens: max(textTokens(len(t.prompt)), 1), ServiceTier: t.tier}
	u.CachedTokens, u.CacheWriteTokens = s.cache.use(t.model.id+"\n"+c.key, t.prompt)
	if t.script.inputTokens > 0 {
		u.InputTokens = t.script.inputTokens
	}
	if t.script.cachedTokens >= 0 {
		u.CachedTokens = t.script.cachedTokens
	}
	u.CachedTokens = min(u.CachedTokens, u.InputTokens)
	u.CacheWriteTokens = min(u.CacheWriteTokens, u.InputTokens-u.CachedTokens)
	if !t.model.writes {
		u.CacheWriteTokens = 0
	}
	return u
}
