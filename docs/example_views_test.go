package docs_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// The events of an account with an owner, and the view of docs/indexes.md.
type (
	Opened   struct{ Owner string }
	Credited struct {
		Owner string
		Cents int64
	}
	Closed struct{}
	Owned  struct{ Owner string } // the state, and the commands
	Open   Opened
	Credit Credited
)

var (
	Events = jetstream.NewSchema("account",
		jetstream.Event[Opened]("opened"), jetstream.Event[Credited]("credited"), jetstream.Event[Closed]("closed"))
	ownedType = aggregate.New[Owned](Events,
		aggregate.Apply(func(o *Owned, e Opened, _ jetstream.Meta) { o.Owner = e.Owner }),
		aggregate.Ignore[Credited](), aggregate.Ignore[Closed](),
		aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) { return []any{Opened(c)}, nil }),
		aggregate.Handle("credit", func(o Owned, c Credit, _ aggregate.Decision) ([]any, error) {
			return []any{Credited{Owner: o.Owner, Cents: c.Cents}}, nil
		}),
	)
)

// snippet:index
type Account struct {
	Owner  string    `json:"owner"`
	Cents  int64     `json:"cents"`
	Opened time.Time `json:"opened,omitzero"`
}

var Accounts = projection.NewKeyed("accounts",
	projection.On(Events, func(a *Account, e Opened, m jetstream.Meta) { a.Owner, a.Opened = e.Owner, m.Time }),
	projection.On(Events, func(a *Account, e Credited, _ jetstream.Meta) { a.Cents += e.Cents }),
).
	Index("owner", func(a Account) []string { return []string{a.Owner} }).
	Index("opened", func(a Account) []string { return []string{projection.TimeValue(a.Opened)} })

// end:index

// docs/indexes.md and docs/queries.md.
func Example_find() {
	ctx := context.Background()
	nc, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, ownedType, aggregate.RepositoryConfig{}))
	updater := must(projection.NewUpdater(store, Accounts, projection.UpdaterConfig{}))
	defer running(updater)()
	reader := must(projection.NewReader[Account](ctx, nc, "bank", "accounts", projection.ReaderConfig{}))
	must(repo.Create(ctx, "a1", Open{Owner: "ann"}))
	res := must(repo.Execute(ctx, "a1", Credit{Cents: 70}))

	find := func() error {
		// snippet:find
		for entry, err := range reader.Find(ctx, "owner", projection.FindOptions{Value: "ann", AtLeast: res.Position}) {
			if err != nil {
				return err
			}
			fmt.Println(entry.Key, entry.Value.Cents)
		}

		now := time.Now()
		month := projection.FindOptions{Prefix: now.UTC().Format("2006.01.")} // of one month
		latest := projection.FindOptions{                                     // the latest 50 of a week
			From: projection.TimeValue(now.AddDate(0, 0, -7)), Before: projection.TimeValue(now.Add(time.Hour)),
			Reverse: true, Limit: 50,
		}
		for _, which := range []projection.FindOptions{month, latest} {
			for entry, err := range reader.Find(ctx, "opened", which) {
				if err != nil {
					return err
				}
				fmt.Println(entry.Key)
			}
		}
		// end:find
		return nil
	}
	check(find())

	serve := func(mux *http.ServeMux, server *http.Server) error {
		accounts := reader
		// snippet:query-http
		h, err := queryhttp.New(accounts, queryhttp.Config{}) // accounts is a projection.Reader
		if err != nil {
			return err
		}
		mux.Handle("/accounts/", http.StripPrefix("/accounts", h))
		server.RegisterOnShutdown(h.Close)
		// end:query-http
		return nil
	}
	mux, server, answer := http.NewServeMux(), &http.Server{}, httptest.NewRecorder()
	check(serve(mux, server))
	mux.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/accounts/a1", http.NoBody))
	fmt.Println(answer.Code)
	check(server.Shutdown(ctx))
	// Output:
	// a1 70
	// a1
	// a1
	// 200
}

// snippet:owners
type Owner struct {
	Cents int64 `json:"cents"`
}

var Owners = projection.NewKeyed("owners", projection.On(Events, func(o *Owner, e Credited, _ jetstream.Meta) {
	o.Cents += e.Cents
}, projection.Keys(func(e Credited, _ jetstream.Meta) []string { return []string{e.Owner} }))).
	Index("cents", func(o Owner) []string { return []string{projection.IntValue(o.Cents)} }) // a ranking

// end:owners

// docs/indexes.md.
func Example_owners() {
	ctx := context.Background()
	nc, store, end := bank(ctx)
	defer end()
	repo := must(aggregate.NewRepository(store, ownedType, aggregate.RepositoryConfig{}))
	updater := must(projection.NewUpdater(store, Owners, projection.UpdaterConfig{}))
	defer running(updater)()
	reader := must(projection.NewReader[Owner](ctx, nc, "bank", "owners", projection.ReaderConfig{}))
	var res aggregate.Result
	for _, id := range []string{"a1", "a2"} {
		must(repo.Create(ctx, id, Open{Owner: "ann"}))
		res = must(repo.Execute(ctx, id, Credit{Cents: 70}))
	}
	fmt.Println(must(reader.Get(ctx, "ann", projection.AtLeast(res.Position))).Value.Cents)
	// Output: 140
}
