// Package aggregate is Rossby's command side: aggregates that decide, services
// that let others command them, and reactors that command them when something
// happened.
//
// # Types
//
// A [Type] says what an aggregate's events do to its state, with [Apply], and what
// its commands decide, with [Create] and [Handle]. Both are pure functions: events
// are applied whenever an aggregate is loaded, and commands are decided again when
// another writer came first. Mistakes are found when the type is built.
//
//	var Type = aggregate.New[Account](account.Events,
//		aggregate.Apply(func(a *Account, e account.Opened, _ jetstream.Meta) { a.Cents = e.Cents }),
//		aggregate.Create("open", func(c Open, _ aggregate.Decision) ([]any, error) {
//			return []any{account.Opened{Cents: c.Cents}}, nil
//		}),
//		aggregate.Handle("debit", func(a Account, c Debit, _ aggregate.Decision) ([]any, error) {
//			if a.Cents < c.Cents {
//				return nil, aggregate.Reject("insufficient-funds", "the balance is %d", a.Cents)
//			}
//			return []any{account.Debited{Cents: c.Cents}}, nil
//		}),
//	)
//
// A small state travels in the commits, so that loading an aggregate is one get
// however long its history; a large one is kept beside them: see [StateLimit]. When
// an Apply changes its meaning, raise [StateVersion], and the events are applied
// anew. [Repository.Verify] and aggregatetest.Golden find out when that was
// forgotten. Events stay the truth. docs/state.md tells more.
//
// # Executing
//
// A [Repository] executes commands in this process. It loads the aggregate, lets
// it decide, and appends the events on the condition that nobody else wrote
// meanwhile; on a conflict it begins again, a bounded number of times. All events
// of a decision are stored, or none. No events is a decision, too: nothing is
// written.
//
//	res, err := repo.Execute(ctx, "a1", Debit{Cents: 500}, aggregate.CommandID(id))
//
// [Repository.ExecuteFunc] computes the command from the state, [ExpectVersion]
// refuses if the aggregate has changed since it was read, [Metadata] goes along to
// everybody who handles the events. [Repository.Load] and [Repository.History]
// read. [Intercept] stands between handlers and the store; [Reserve] and [Release]
// take and give up unique keys together with the events.
//
// Commands for one aggregate are decided in the order they came. Those that come
// while a commit is on its way are stored together, as one commit, each with its own
// outcome: one aggregate takes tens of thousands of commands a second.
// [Repository.Stats] shows it. docs/commands.md tells all of it, with the tests that
// hold it.
//
// # Once
//
// A command sent again with its [CommandID] gets its first outcome and does
// nothing. Ids of [jetstream.NewCommandID] bear their time and cost nothing to
// look for; other strings, such as an Idempotency-Key, are remembered for a day, or
// as long as [RepositoryConfig] says.
//
// Use it wherever an answer can get lost. [jetstream.ErrUnknownOutcome] says that a
// command may have happened or may yet: repeat it with the same id.
// [jetstream.ErrUnavailable], [ErrBusy] and [ErrContended] say that it did not.
//
// A refusal, "not found" and "exists" are confirmed with the stream's leader before
// they are reported. A leader that was cut off from its peers can be wrong about
// them for about ten seconds; about what is stored it cannot. [RecordRejections]
// makes them exact.
//
// # Services and clients
//
// A [Service] answers commands over NATS; a [Client] sends them, and repeats them
// until it knows. Repository and Client are both a [Target], with the same errors,
// so what is written against a Target runs in one process or in many. docs/wire.md
// is for clients in other languages:
//
//	nats req bank.command.account.debit.a1 '{"cents":5}'
//
// Package commandhttp lets HTTP clients command any Target.
//
// Commands for one aggregate run in the order they came, those for different
// aggregates in parallel.
//
// # Reactors
//
// A [Reactor] follows the store and runs a handler for each event, in the order of
// its aggregate: a process manager, a saga. The handler's effects go through [Do].
// Each is keyed by the reactor, the event and the effect's name, and its outcome,
// a refusal too, is recorded with the aggregate that it touched. So a handler may
// run again, after a failure, a crash or a year: every effect returns what came of
// it the first time, and the handler takes the same branches.
//
//	aggregate.On(transfer.Events, func(
//		ctx context.Context, e transfer.Created, m jetstream.Meta, do *aggregate.Do,
//	) error {
//		_, err := do.Update(ctx, accounts, e.From, Debit{Cents: e.Cents})
//		if errors.Is(err, aggregate.ErrRejected) {
//			_, err = do.Update(ctx, transfers, m.ID, Fail{})
//		}
//		return err
//	})
//
// An error that is returned makes the event wait and be tried again; a refusal
// that is returned parks the aggregate's events until [Reactor.Resume].
// [ReactorConfig.Policies] say otherwise, by the class of the error.
//
// [Do.CreateOrUpdate] finds the instance of a process that an event belongs to, or
// makes it.
//
// # Deadlines
//
// [Do.After] executes a command later, once for ever, whichever process runs
// [Timers] for its aggregate type then; [Do.Cancel] takes that back.
package aggregate
