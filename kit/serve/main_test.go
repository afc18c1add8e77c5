package serve

func TestMainsExitStatus(t *testing.T) {
	t.Parallel()
	good := func(func(string) string) (int, error) { return 1, nil }
	bad := func(func(string) string) (int, error) { return 0, errors.New("A: not set") }
	fine := func(context.Context, int) error { return nil }
	fails := func(context.Context, int) error { return errors.New("port in use") }
	for name, tt := range map[string]struct {
		args         []string
		load         func(func(string) string) (int, error)
		run, migrate func(context.Context, int) error
		want         int
	}{
		"a clean run":               {[]string{"x"}, good, fine, fails, 0},
		"a run that fails":          {[]string{"x"}, good, fails, fine, 1},
		"a migration":               {[]string{"x", "migrate"}, good, fails, fine, 0},
		"a wrong configuration":     {[]string{"x"}, bad, fine, fine, 2},
		"an unknown command":        {[]string{"x", "dance"}, good, fine, fine, 2},
		"no database to migrate":    {[]string{"x", "migrate"}, good, fine, nil, 2},
		"more than one argument":    {[]string{"x", "migrate", "now"}, good, fine, fine, 2},
		"an end that was asked for": {[]string{"x"}, good, func(context.Context, int) error { return context.Canceled }, nil, 0},
	} {
		if got := Main(tt.args, tt.load, tt.run, tt.migrate); got != tt.want {
			t.Errorf("%s exits with %d, want %d", name, got, tt.want)
		}
	}
}
