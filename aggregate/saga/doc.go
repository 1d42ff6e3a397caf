// Package saga runs a business transaction over several aggregates as a list of
// steps, each a command with another that undoes it.
//
//	transfer := saga.New("transfer-process",
//		saga.Step[Details]{
//			Name: "debit", Timeout: time.Minute,
//			Do:   func(i saga.Instance[Details]) saga.Command { return saga.Send(accounts, i.Data.From, Debit{…}) },
//			Undo: func(i saga.Instance[Details]) saga.Command { return saga.Send(accounts, i.Data.From, Refund{…}) },
//		},
//		saga.Step[Details]{
//			Name: "credit",
//			Do:   func(i saga.Instance[Details]) saga.Command { return saga.Send(accounts, i.Data.To, Credit{…}) },
//		},
//	)
//	process, err := saga.NewProcess(ctx, store, transfer, saga.ProcessConfig{…})
//	go process.Run(ctx)
//	_, err = process.Start(ctx, "t1", Details{…})
//
// # What happens
//
// The steps are done in order. One that is refused, or takes longer than its
// Timeout, fails the saga: the steps that were done are undone, the last one first.
// Servers and services that are away fail nothing: the command is sent again until
// its outcome is known. Each command takes effect once for ever, as with
// [aggregate.Do].
//
// An instance is an ordinary aggregate. Its events say what it did and why –
// started, begun debit, done debit, begun credit, failed credit (account-deleted),
// undoing debit, undone debit, compensated – and views and gateways follow them
// like any others: [Saga.Events].
//
// # Time
//
// A step's Timeout counts from when it was begun. When it is over the saga fails at
// once; a command that was under way is undone if it turns out to have been done.
//
// # Steps that wait
//
// The outcome of a step with Await comes later, as an event of some aggregate: see
// [ReportOn]. From the moment on that its command was accepted, such a step is
// undone with the others if the saga fails – except where it failed itself.
//
// # Stuck
//
// A command that undoes must not be refused. Where one is, the instance is stuck:
// [Process.InFlight] lists it with the reason, [Process.Retry] tries again, and
// [Process.Resolve] goes on when a person has done it by hand.
package saga
