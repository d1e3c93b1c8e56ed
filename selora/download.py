# The old name of `python -m selora.data.fetch`, which still works.
from selora.data.fetch.__main__ import main

if __name__ == "__main__":
    main()
