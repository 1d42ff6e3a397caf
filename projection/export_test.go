package projection

// Steps lets a function be told of each step of an updater, before Run: "opened", "read",
// "folded", "key", "each", "batch", "put" and "stored".
func Steps(u *Updater, step func(string)) { u.step = step }
