package monitor_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/jetstream/monitor"
)

// Members join a club.
type (
	Joined struct{ Name string }
	Member struct{}
	Join   struct{ Name string }
)

var members = aggregate.New[Member](jetstream.NewSchema("member", jetstream.Event[Joined]("joined")),
	aggregate.Ignore[Joined](),
	aggregate.Create("join", func(c Join, _ aggregate.Decision) ([]any, error) { return []any{Joined(c)}, nil }),
)

// Metrics and readiness of a program's modules. A program has an exporter in place
// of the reader, and a service that runs: this one's does not, and it is not ready.
func Example() {
	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "club"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, members, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{})
	if err != nil {
		log.Fatal(err)
	}

	reader := metric.NewManualReader()
	mon, err := monitor.New(monitor.Config{
		Store: store, MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = mon.Close() }()
	mon.Repository(repo)
	mon.Service(service)
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", mon.Live())
	mux.Handle("GET /readyz", mon.Ready())

	if _, err := repo.Create(ctx, "m1", Join{Name: "Ada"}); err != nil {
		log.Fatal(err)
	}
	var metrics metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &metrics); err != nil {
		log.Fatal(err)
	}
	for _, m := range metrics.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[float64]); ok && m.Name == "rossby.repository.commands" {
			fmt.Println(m.Name, sum.DataPoints[0].Value)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody))
		fmt.Println(path, answer.Code)
	}
	for _, module := range mon.Report(ctx).Modules {
		if !module.Ready {
			fmt.Println(module.Kind, module.Name, "is not ready")
		}
	}
	// Output:
	// rossby.repository.commands 1
	// /healthz 200
	// /readyz 503
	// service member is not ready
}
