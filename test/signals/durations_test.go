package signals_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/test/signals/shop"
)

// histograms are the counts of every histogram, by name and attributes but the
// store's; sums are the seconds.
func histograms(t *testing.T, from *sdkmetric.ManualReader) (counts map[string]uint64, sums map[string]float64) {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := from.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	counts, sums = map[string]uint64{}, map[string]float64{}
	for _, s := range data.ScopeMetrics {
		for _, m := range s.Metrics {
			h, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				continue
			}
			for _, p := range h.DataPoints {
				words := []string{m.Name}
				for _, a := range p.Attributes.ToSlice() {
					if a.Key != attribute.Key("rossby.store") {
						words = append(words, a.Value.AsString())
					}
				}
				name := strings.Join(words, ",")
				counts[name], sums[name] = p.Count, p.Sum
			}
		}
	}
	return counts, sums
}

// Each histogram counts what happened, once, with what came of it.
func TestDurations(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	s := shop.Start(t, natstest.Name(t), nil, provider)
	if _, err := s.Orders.Create(t.Context(), "o1", shop.Place{Item: "book"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Orders.Create(t.Context(), "o2", shop.Place{}); !errors.Is(err, aggregate.ErrRejected) {
		t.Fatal(err)
	}
	// The attributes are in the order of their keys.
	want := map[string]uint64{
		"rossby.command.duration,order,place,events":              1,
		"rossby.command.duration,order,place,refused":             1,
		"rossby.command.duration,order,send,events":               1,
		"rossby.command.duration,stock,take,events":               1,
		"rossby.append.duration,order,stored":                     2,
		"rossby.append.duration,stock,stored":                     1,
		"rossby.service.request.duration,order,place,events":      1,
		"rossby.service.request.duration,order,place,refused":     1,
		"rossby.service.request.duration,order,send,events":       1,
		"rossby.reactor.handler.duration,placed,done,take-stock":  1,
		"rossby.gateway.delivery.duration,shipping,shipping,done": 1,
	}
	natstest.Eventually(t, "the histograms", func() error {
		got, _ := histograms(t, reader)
		fold, delay := got["rossby.view.fold.duration,orders"], got["rossby.view.delay,orders"]
		maps.DeleteFunc(got, func(name string, _ uint64) bool { return strings.HasPrefix(name, "rossby.view.") })
		if !maps.Equal(got, want) {
			return fmt.Errorf("got %v", slices.Sorted(maps.Keys(got)))
		}
		// Two commits concern the view, in one page or in two.
		if fold < 1 || fold > 2 || fold != delay {
			return fmt.Errorf("%d folds, %d delays", fold, delay)
		}
		return nil
	})
}

// What is measured is the time that was taken, failures and panics too.
func TestDurationsOfFailures(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	s := shop.Start(t, natstest.Name(t), nil, nil)
	const slow = 30 * time.Millisecond
	cfg := aggregate.ReactorConfig{
		Start: jetstream.FromBeginning(), Logger: shop.Quiet, MeterProvider: provider, MinBackoff: time.Millisecond,
		TTL: natstest.Patience, // nobody loses it, and nothing is handled twice
	}
	tries := 0
	reactor := shop.Need(aggregate.NewReactor(s.Store, "clumsy", cfg,
		aggregate.On(shop.OrderEvents, func(ctx context.Context, _ shop.Placed, _ jetstream.Meta, _ *aggregate.Do) error {
			tries++
			switch tries {
			case 1:
				panic("it trips")
			case 2:
				return errDown
			default:
				wait, cancel := context.WithTimeout(ctx, slow)
				defer cancel()
				<-wait.Done()
				return nil
			}
		})))(t)
	gate := shop.Need(gateway.New(s.Store, "refused", gateway.Config{
		Start: jetstream.FromBeginning(), Logger: shop.Quiet, MeterProvider: provider, TTL: natstest.Patience,
	}, gateway.On(shop.OrderEvents, func(context.Context, shop.Placed, gateway.Delivery) error {
		return gateway.Permanent(errDown)
	})))(t)
	shop.Run(t, reactor.Run, gate.Run)
	if _, err := s.Orders.Create(t.Context(), "o1", shop.Place{Item: "book"}); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{
		"rossby.reactor.handler.duration,placed,failed,clumsy":    2,
		"rossby.reactor.handler.duration,placed,done,clumsy":      1,
		"rossby.gateway.delivery.duration,refused,refused,failed": 1,
	}
	natstest.Eventually(t, "the histograms", func() error {
		got, sums := histograms(t, reader)
		if !maps.Equal(got, want) {
			return fmt.Errorf("got %v", got)
		}
		if took := sums["rossby.reactor.handler.duration,placed,done,clumsy"]; took < slow.Seconds() {
			return fmt.Errorf("the handler took %v s, that is less than it waited", took)
		}
		return nil
	})
}
