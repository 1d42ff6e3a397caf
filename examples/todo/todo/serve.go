package todo

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/commandhttp"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// Serve runs the list until ctx ends. Run it in as many processes as you like: each
// answers, one of them reacts and one writes the view.
func Serve(ctx context.Context, nc *nats.Conn, name string, listener net.Listener) error {
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: name})
	if err != nil {
		return err
	}
	todos, err := aggregate.NewRepository(store, Type, aggregate.RepositoryConfig{})
	if err != nil {
		return err
	}
	bulks, err := aggregate.NewRepository(store, BulkType, aggregate.RepositoryConfig{})
	if err != nil {
		return err
	}
	deleter, err := aggregate.NewReactor(store, "bulk-deleter",
		aggregate.ReactorConfig{Start: jetstream.FromBeginning()}, Deleter(todos, bulks))
	if err != nil {
		return err
	}
	updater, err := projection.NewUpdater(store, Items, projection.UpdaterConfig{})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return deleter.Run(ctx) })
	g.Go(func() error { return updater.Run(ctx) })
	g.Go(func() error {
		// The updater makes the view, and the reader waits for that.
		items, err := projection.NewReader[Item](ctx, nc, name, Items.View(),
			projection.ReaderConfig{OpenWait: time.Minute})
		if err != nil || ctx.Err() != nil {
			return err
		}
		return serveHTTP(ctx, listener, todos, bulks, items)
	})
	return g.Wait()
}

func serveHTTP(
	ctx context.Context, listener net.Listener,
	todos *aggregate.Repository[Todo], bulks *aggregate.Repository[Bulk], items *projection.Reader[Item],
) error {
	commands, err := commandhttp.New(commandhttp.Config{Targets: []aggregate.Target{todos}})
	if err != nil {
		return err
	}
	queries, err := queryhttp.New(items, queryhttp.Config{})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/do/", http.StripPrefix("/do", commands))
	mux.Handle("/todos/", http.StripPrefix("/todos", queries))
	mux.HandleFunc("POST /clear", func(w http.ResponseWriter, r *http.Request) {
		bulk, err := clearDone(r.Context(), bulks, items)
		if err != nil {
			commands.Problem(w, r, err)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(map[string]string{"bulk": bulk})
	})
	server := &http.Server{
		Handler: http.NewCrossOriginProtection().Handler(mux), ReadHeaderTimeout: 10 * time.Second,
	}
	server.RegisterOnShutdown(queries.Close)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		return server.Shutdown(context.WithoutCancel(ctx)) // what is under way is answered
	}
}

// clearDone asks for everything to be deleted that is done, and returns the id of the
// bulk deletion.
func clearDone(
	ctx context.Context, bulks *aggregate.Repository[Bulk], items *projection.Reader[Item],
) (string, error) {
	var done DeleteMany
	for item, err := range items.Find(ctx, "done", projection.FindOptions{Value: "yes", Limit: BulkMax}) {
		if err != nil {
			return "", err
		}
		done.IDs = append(done.IDs, item.Key)
	}
	res, err := bulks.Create(ctx, "", done)
	return res.ID, err
}
