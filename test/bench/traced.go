package main

import (
	"context"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/rossby-go/rossby/aggregate"
)

// executeTraced executes commands with spans that are recorded, against the same
// without any.
func executeTraced(ctx context.Context, e *env) (*result, error) {
	plain, _, err := e.commandSide(ctx, 0, writers)
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }() // it exports nothing
	traced, err := aggregate.NewRepository(e.store, accountType, aggregate.RepositoryConfig{TracerProvider: provider})
	if err != nil {
		return nil, err
	}
	for i := range writers {
		if _, err := traced.Create(ctx, "traced-"+aggregateID(i), someOpen); err != nil {
			return nil, err
		}
	}
	return measure(ctx, e, e.plan(80, 200),
		contender{"ours", timed(turns(writers, func(ctx context.Context, i int) error {
			_, err := traced.Execute(ctx, "traced-"+aggregateID(i), someCredit)
			return err
		}))},
		contender{"raw", timed(turns(writers, func(ctx context.Context, i int) error {
			_, err := plain.Execute(ctx, aggregateID(i), someCredit)
			return err
		}))})
}
