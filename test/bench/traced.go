package main

import (
	"context"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/rossby-go/rossby/aggregate"
)

// executeTraced executes commands with spans that are recorded, against the same
// without any.
func executeTraced(ctx context.Context, e *env) (*result, error) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }() // it exports nothing
	return executeWith(ctx, e, aggregate.RepositoryConfig{TracerProvider: provider})
}

// executeMeasured executes commands that are measured, against the same that are
// not.
func executeMeasured(ctx context.Context, e *env) (*result, error) {
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }() // nobody reads it
	return executeWith(ctx, e, aggregate.RepositoryConfig{MeterProvider: provider})
}

// executeWith executes commands as the configuration says, against the same without
// it.
func executeWith(ctx context.Context, e *env, cfg aggregate.RepositoryConfig) (*result, error) {
	plain, _, err := e.commandSide(ctx, 0, writers)
	if err != nil {
		return nil, err
	}
	observed, err := aggregate.NewRepository(e.store, accountType, cfg)
	if err != nil {
		return nil, err
	}
	for i := range writers {
		if _, err := observed.Create(ctx, "observed-"+aggregateID(i), someOpen); err != nil {
			return nil, err
		}
	}
	return measure(ctx, e, e.plan(80, 200),
		contender{"ours", timed(turns(writers, func(ctx context.Context, i int) error {
			_, err := observed.Execute(ctx, "observed-"+aggregateID(i), someCredit)
			return err
		}))},
		contender{"raw", timed(turns(writers, func(ctx context.Context, i int) error {
			_, err := plain.Execute(ctx, aggregateID(i), someCredit)
			return err
		}))})
}
