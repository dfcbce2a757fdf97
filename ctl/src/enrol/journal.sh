# What the agent said last.
LC_ALL=C journalctl --unit cbagent.service --lines 8 --output cat --no-pager
