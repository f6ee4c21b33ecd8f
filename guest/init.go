package guest

// Init must be the first call of main, and of TestMain, in a program that is
// used as Machine.Init. It returns at once, unless this process is process 1 of
// a guest that a Machine booted; then it runs the machine and never returns.
func Init() {}
