package secret

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestNoPrinterShowsASecret(t *testing.T) {
	t.Parallel()
	const plain = "sk-canary"
	type config struct{ Key String }
	c := config{New(plain)}
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.AddSync(&log), zap.DebugLevel))
	logger.Info("x", zap.Any("a", c), zap.Stringer("b", c.Key), zap.Reflect("c", c), zap.Any("d", c.Key))
	for name, got := range map[string]string{
		"%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c),
		"%s": fmt.Sprintf("%s %s", c.Key, c), "%q": fmt.Sprintf("%q", c.Key), "%x": fmt.Sprintf("%x", c.Key),
		"error": fmt.Errorf("bad: %v", c).Error(), "json": string(marshalled), "zap": log.String(),
	} {
		if strings.Contains(got, plain) || strings.Contains(got, fmt.Sprintf("%x", plain)) {
			t.Errorf("%s shows the secret: %s", name, got)
		}
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	s := New("a")
	if !s.Equal("a") || s.Equal("b") || s.Equal("") || s.Equal("aa") {
		t.Error("Equal does not compare the texts")
	}
}
