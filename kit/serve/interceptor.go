package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// chain is the three interceptors of every call, outermost first: observe,
// recover, authenticate.
type chain struct {
	log     *zap.Logger
	guard   *guard
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newChain(cfg Config, opt Options, guard *guard) *chain {
	auto := promauto.With(opt.Registry)
	return &chain{
		log: opt.Log, guard: guard,
		calls: auto.NewCounterVec(prometheus.CounterOpts{
			Name: cfg.Name + "_rpc_calls_total", Help: "Calls by method and gRPC code.",
		}, []string{"method", "code"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: cfg.Name + "_rpc_duration_seconds", Help: "Duration of calls by method.",
			// From a memory look-up to a slow database.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}, []string{"method"}),
	}
}

func (c *chain) observeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, done := c.begin(ctx, info.FullMethod)
	resp, err := next(ctx, req)
	return resp, done(err)
}

func (c *chain) observeStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, done := c.begin(ss.Context(), info.FullMethod)
	return done(next(srv, withContext{ss, ctx}))
}

// begin starts the clock of a call; the function it returns ends it: it logs
// and counts the outcome and turns the error into a status.
func (c *chain) begin(ctx context.Context, method string) (context.Context, func(error) error) {
	start := time.Now()
	call := &call{requestID: requestIDOf(ctx)}
	ctx = context.WithValue(ctx, callKey{}, call)
	return ctx, func(err error) error {
		st := Status(err)
		c.calls.WithLabelValues(method, st.Code().String()).Inc()
		c.seconds.WithLabelValues(method).Observe(time.Since(start).Seconds())
		if strings.HasPrefix(method, "/grpc.health.") {
			return st.Err()
		}
		fields := []zap.Field{
			zap.String("rpc", method), zap.Stringer("code", st.Code()), zap.String("request_id", call.requestID),
			zap.String("actor", call.actor), zap.Int64("duration_ms", time.Since(start).Milliseconds()),
		}
		switch {
		case err == nil:
			c.log.Info("rpc", fields...)
		case st.Code() == codes.Internal || st.Code() == codes.DataLoss:
			c.log.Error("rpc", append(fields, zap.String("error", fault.Cause(err)))...)
		default:
			c.log.Warn("rpc", append(fields, zap.String("error", fault.Cause(err)))...)
		}
		return st.Err()
	}
}

func (c *chain) recoverUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer recoverTo(&err)
	return next(ctx, req)
}

func (c *chain) recoverStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer recoverTo(&err)
	return next(srv, ss)
}

func recoverTo(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

func (c *chain) authUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.guard.authenticate(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (c *chain) authStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.guard.authenticate(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

// Status turns an error into a gRPC status. A fault's kind decides the code and
// its text is shown; so does a status that another service answered with, where
// that is about the request. Any other error says nothing but "internal error".
func Status(err error) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	if kind := fault.KindOf(err); kind != fault.Internal {
		return status.New(codeOf(kind), fault.Text(err))
	}
	if e, ok := errors.AsType[statusError](err); ok {
		return passedOn(e.GRPCStatus())
	}
	if st := status.FromContextError(err); st.Code() != codes.Unknown {
		return status.New(st.Code(), "the call was cancelled or took too long")
	}
	return status.New(codes.Internal, "internal error")
}

// statusError is an error that came from a call. Its own status holds none of
// what was wrapped around it, unlike that of status.FromError.
type statusError interface {
	error
	GRPCStatus() *status.Status
}

// passedOn is what our caller may see of another service's answer.
func passedOn(st *status.Status) *status.Status {
	switch st.Code() {
	case codes.Unknown, codes.Internal, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		// Another service refused us, or we misuse it: not the caller's fault.
		return status.New(codes.Internal, "internal error")
	case codes.Unavailable:
		// The text may be gRPC's own, which tells addresses.
		return status.New(codes.Unavailable, "a service that is needed cannot be reached; try again")
	case codes.Canceled, codes.DeadlineExceeded:
		return status.New(st.Code(), "the call was cancelled or took too long")
	default:
		return status.New(st.Code(), st.Message())
	}
}

func codeOf(k fault.Kind) codes.Code {
	switch k {
	case fault.Invalid:
		return codes.InvalidArgument
	case fault.NotFound:
		return codes.NotFound
	case fault.Exists:
		return codes.AlreadyExists
	case fault.Conflict:
		return codes.Aborted
	case fault.Precondition:
		return codes.FailedPrecondition
	case fault.Denied:
		return codes.PermissionDenied
	case fault.Unauthenticated:
		return codes.Unauthenticated
	case fault.Exhausted:
		return codes.ResourceExhausted
	case fault.Unavailable:
		return codes.Unavailable
	case fault.DataLoss:
		return codes.DataLoss
	case fault.Internal:
	}
	return codes.Internal
}
