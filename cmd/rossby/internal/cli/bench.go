package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// benchConfig is what is measured.
type benchConfig struct {
	n, bytes, replicas int
}

// benchRow is a measurement: ours beside raw nats.go's.
type benchRow struct {
	Name string `json:"name"`
	N    int    `json:"n"`
	// Ours and Raw are medians of one operation, in microseconds.
	Ours float64 `json:"oursMicros"`
	Raw  float64 `json:"rawMicros"`
	// Ratio is raw's cost over ours: 1 is as fast as raw.
	Ratio float64 `json:"ratio"`
	Raws  string  `json:"raw"`
}

func (a *app) benchCommand() *cobra.Command {
	var cfg benchConfig
	const nDefault, bytesDefault, most = 1000, 200, 1_000_000
	c := a.command("bench", "Measures appends, loads and commands here against raw NATS",
		"  rossby bench --context prod -n 5000\n  rossby bench --replicas 3 --json", noArgs,
		func(ctx context.Context, _ []string) error {
			if cfg.n < 1 || cfg.n > most || cfg.bytes < 1 || cfg.bytes > most {
				return &usageError{fmt.Sprintf("-n and --bytes must be from 1 to %d", most), nil}
			}
			nc, end, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer end()
			rows, err := a.bench(ctx, nc, cfg)
			if err != nil {
				return err
			}
			return list(a, rows, "", []string{"WHAT", "N", "OURS", "RAW", "RATIO", "RAW IS"}, func(r benchRow) []string {
				return []string{
					r.Name, number(r.N), fmt.Sprintf("%.0f µs", r.Ours), fmt.Sprintf("%.0f µs", r.Raw),
					fmt.Sprintf("%.2f", r.Ratio), r.Raws,
				}
			})
		})
	c.Long = "Measures appends, loads and commands here against raw NATS: one at a time, alternating, medians. It\n" +
		"makes a store of its own, and a stream for the raw side, and deletes both. The ratio is raw's cost over ours."
	c.Flags().IntVarP(&cfg.n, "number", "n", nDefault, "`number` of operations of each kind")
	c.Flags().IntVar(&cfg.bytes, "bytes", bytesDefault, "`size` of an event's text")
	c.Flags().IntVar(&cfg.replicas, "replicas", 1, "`number` of servers that keep the store")
	return c
}

// The domain that is measured.
type (
	noted struct{ Text string }
	note  struct{ Text string }
	notes struct{ Last string }
)

func (a *app) bench(ctx context.Context, nc *nats.Conn, cfg benchConfig) (_ []benchRow, err error) {
	name := "rossby-bench-" + jetstream.NewID()
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, err
	}
	defer func() {
		// It is cleaned up after an interrupt, too.
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.conn.timeout)
		defer cancel()
		for _, stream := range []string{name, name + "-raw", "KV_" + name + "__state"} {
			if e := js.DeleteStream(cleaning, stream); e != nil && !errors.Is(e, natsjs.ErrStreamNotFound) {
				err = errors.Join(err, fmt.Errorf("clean up stream %q: %w", stream, e))
			}
		}
	}()
	opening, cancel := a.short(ctx)
	defer cancel()
	store, err := jetstream.Open(opening, nc, jetstream.Config{Name: name, Replicas: cfg.replicas})
	if err != nil {
		return nil, err
	}
	if _, err = js.CreateStream(opening, natsjs.StreamConfig{
		Name: name + "-raw", Subjects: []string{name + "-raw.>"}, AllowDirect: true, Replicas: cfg.replicas,
	}); err != nil {
		return nil, err
	}
	b := &benching{
		store: store, js: js, raw: name + "-raw", cfg: cfg, text: strings.Repeat("x", cfg.bytes), p: a.progress("bench"),
	}
	defer b.p.end()
	return b.run(ctx)
}

type benching struct {
	store *jetstream.Store
	js    natsjs.JetStream
	raw   string
	cfg   benchConfig
	text  string
	p     *progress
	done  int
}

func (b *benching) run(ctx context.Context) ([]benchRow, error) {
	schema := jetstream.NewSchema("bench", jetstream.Event[noted]("noted"))
	typ := aggregate.New[notes](schema,
		aggregate.Apply(func(n *notes, e noted, _ jetstream.Meta) { n.Last = e.Text }),
		aggregate.Handle("note", func(_ notes, c note, _ aggregate.Decision) ([]any, error) { return []any{noted(c)}, nil }),
		aggregate.Create("begin", func(c noted, _ aggregate.Decision) ([]any, error) { return []any{c}, nil }),
	)
	repo, err := aggregate.NewRepository(b.store, typ, aggregate.RepositoryConfig{})
	if err != nil {
		return nil, err
	}
	for _, id := range []string{"b1", "b2"} {
		if _, err := repo.Create(ctx, id, noted{Text: b.text}); err != nil {
			return nil, err
		}
	}
	event, err := schema.Encode(noted{Text: b.text}, b.store.Codec())
	if err != nil {
		return nil, err
	}
	appends, err := b.appends(ctx, event)
	if err != nil {
		return nil, err
	}
	loads, err := b.loads(ctx)
	if err != nil {
		return nil, err
	}
	commands, err := b.commands(ctx, repo)
	return []benchRow{appends, loads, commands}, err
}

// alternate measures two things by turns.
func (b *benching) alternate(ctx context.Context, name, raws string, ours, raw func() error) (benchRow, error) {
	const kinds = 3
	var ourTimes, rawTimes []time.Duration
	for range b.cfg.n {
		if ctx.Err() != nil {
			return benchRow{}, context.Cause(ctx)
		}
		begin := time.Now()
		if err := ours(); err != nil {
			return benchRow{}, fmt.Errorf("bench %s: %w", name, err)
		}
		between := time.Now()
		if err := raw(); err != nil {
			return benchRow{}, fmt.Errorf("bench %s, raw: %w", name, err)
		}
		ourTimes, rawTimes = append(ourTimes, between.Sub(begin)), append(rawTimes, time.Since(between))
		b.done++
		b.p.at(uint64(b.done), uint64(kinds*b.cfg.n)) //nolint:gosec // small and not negative
	}
	row := benchRow{Name: name, N: b.cfg.n, Ours: median(ourTimes), Raw: median(rawTimes), Raws: raws}
	row.Ratio = row.Raw / row.Ours
	return row, nil
}

func median(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2].Nanoseconds()) / float64(time.Microsecond)
}

func (b *benching) appends(ctx context.Context, event jetstream.EventData) (benchRow, error) {
	last, err := b.store.Last(ctx, "bench", "b1", jetstream.Leader)
	if err != nil {
		return benchRow{}, err
	}
	head, data := last.Head, event.Data
	return b.alternate(ctx, "append", "publish with an acknowledgement", func() (err error) {
		head, err = b.store.Append(ctx, jetstream.Write{
			Type: "bench", ID: "b1", After: head,
			Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{event}}},
		})
		return err
	}, func() error {
		_, err := b.js.Publish(ctx, b.raw+".b1", data)
		return err
	})
}

func (b *benching) loads(ctx context.Context) (benchRow, error) {
	stream, err := b.js.Stream(ctx, b.raw)
	if err != nil {
		return benchRow{}, err
	}
	return b.alternate(ctx, "load", "direct get of the last message", func() error {
		_, err := b.store.Last(ctx, "bench", "b1", jetstream.Replica)
		return err
	}, func() error {
		_, err := stream.GetLastMsgForSubject(ctx, b.raw+".b1")
		return err
	})
}

func (b *benching) commands(ctx context.Context, repo *aggregate.Repository[notes]) (_ benchRow, err error) {
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return benchRow{}, err
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- service.Run(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	select {
	case <-service.Ready():
	case err := <-ended:
		ended <- nil
		return benchRow{}, errors.Join(err, context.Cause(ctx))
	}
	nc := b.store.Conn()
	echo, err := nc.Subscribe(b.raw+"-echo", func(m *nats.Msg) { _ = m.Respond(nil) })
	if err != nil {
		return benchRow{}, err
	}
	defer echo.Unsubscribe() //nolint:errcheck // it fails on a closed connection only
	body := []byte(`{"Text":"` + b.text + `"}`)
	subject := protocol.CommandSubject(b.store.Name(), "bench", "note", "b2")
	return b.alternate(ctx, "command", "request, and publish with an acknowledgement", func() error {
		m, err := nc.RequestWithContext(ctx, subject, body)
		if err == nil && m.Header.Get("Nats-Service-Error-Code") != "" {
			err = errors.New(string(m.Data))
		}
		return err
	}, func() error {
		if _, err := nc.RequestWithContext(ctx, b.raw+"-echo", body); err != nil {
			return err
		}
		_, err := b.js.Publish(ctx, b.raw+".b2", body)
		return err
	})
}
