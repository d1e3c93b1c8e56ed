# The old name of `python -m selora.study`, which still works.
from selora.study.__main__ import main

if __name__ == "__main__":
    main()
