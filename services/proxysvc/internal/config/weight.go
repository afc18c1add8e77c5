package config

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// maxWeight bounds weights, so that their sums fit whatever is done with them.
const maxWeight = 1_000_000

// weight reads a weight in thousandths; LiteLLM takes fractions too.
func (s *section) weight() int64 {
	n := s.take("weight")
	if n == nil {
		return 1000
	}
	text, ok := s.r.scalar(n, join(s.path, "weight"))
	if !ok {
		return 1000
	}
	w, err := money.ParseDecimal(text, 3)
	if err != nil || w < 0 || w > maxWeight*1000 {
		s.r.fault(n, join(s.path, "weight"), "%s is not a number from 0 to %d with at most 3 decimals", shown(n), maxWeight)
		return 1000
	}
	return w
}

// weigh sets the weights, given in thousandths: whole ones as they are, and all
// thousandfold when one has a fraction, since only their proportions count.
func weigh(ds []proxy.Deployment, thousandths []int64) {
	unit := int64(1000)
	for _, w := range thousandths {
		if w%1000 != 0 {
			unit = 1
		}
	}
	for i := range ds {
		ds[i].Weight = int(thousandths[i] / unit)
	}
}

// cooldown reads a deployment's cool-down. Where 0 says that it has none, it gets
// the shortest one, since no cool-down at all means the routing's.
func (s *section) cooldown() time.Duration {
	d := s.seconds("cooldown_time", 0, 0)
	if d == 0 && s.take("cooldown_time") != nil {
		return 1
	}
	return d
}
